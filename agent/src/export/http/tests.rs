//! The server spoken to over real connections.
