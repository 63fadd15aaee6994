//! A parsed Go binary: everything the agent needs to know of it before it touches the process.
