//! The `parkwarden` command.

fn main() {}
