//! What xtask's commands and the integration tests share.
