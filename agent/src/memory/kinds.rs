//! What heap objects are, as far as that can be told from outside.

use serde::{Deserialize, Serialize};

/// Objects of the heap that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeapKind {
    /// Their type, as Go writes it; `[]T` if each is several of type `T`. `None` where nothing tells it.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Size of each, as the allocator has it; `None` where they are of several sizes.
    pub size_class: Option<u64>,
    /// Whether they hold pointers.
    pub pointers: bool,
    /// How many.
    pub objects: u64,
    /// Bytes of all.
    pub bytes: u64,
}
