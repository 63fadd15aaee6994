//! Scrapes of made-up nodes.
