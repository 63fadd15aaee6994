//! What heap is, in words.

use super::numbers::{bytes, number};
use crate::memory::kinds::HeapKind;

/// `80 MiB of main.request (20 480 objects), 30 MiB in 7 680 objects of 4 096 bytes without pointers, 8 MiB of others`; `of` is the
/// sum of all.
pub(crate) fn kinds(of: u64, kinds: &[HeapKind]) -> Option<String> {
    let told: u64 = kinds.iter().map(|kind| kind.bytes).fold(0, u64::saturating_add);
    let mut parts: Vec<String> = kinds.iter().map(kind).collect();
    if parts.is_empty() {
        return None;
    }
    if told < of {
        parts.push(format!("{} of others", bytes(of - told)));
    }
    Some(parts.join(", "))
}

fn kind(kind: &HeapKind) -> String {
    let (sum, count) = (bytes(kind.bytes), number(kind.objects));
    let objects = if kind.objects == 1 { "object" } else { "objects" };
    let pointers = if kind.pointers { "with" } else { "without" };
    match (&kind.type_name, kind.size_class) {
        (Some(name), _) => format!("{sum} of {name} ({count} {objects})"),
        (None, Some(size)) => format!("{sum} in {count} {objects} of {} {pointers} pointers", self::size(size)),
        (None, None) => format!("{sum} in {count} large {objects} {pointers} pointers"),
    }
}

/// `4 096 bytes`, `32 KiB`.
fn size(size: u64) -> String {
    match size {
        0x2800.. => bytes(size),
        _ => format!("{} bytes", number(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_heap_is_is_told_by_types_and_sizes() {
        let named = |name: &str| HeapKind { type_name: Some(name.to_owned()), ..HeapKind::default() };
        let all = [
            HeapKind { objects: 20_480, bytes: 80 << 20, pointers: true, ..named("main.request") },
            HeapKind { size_class: Some(4096), objects: 7680, bytes: 30 << 20, ..HeapKind::default() },
            HeapKind { size_class: Some(32 << 10), objects: 20, bytes: 640 << 10, ..HeapKind::default() },
            HeapKind { size_class: Some(6400), objects: 1, bytes: 6400, pointers: true, ..HeapKind::default() },
            HeapKind { size_class: None, objects: 2, bytes: 100 << 10, ..HeapKind::default() },
        ];
        let told: u64 = all.iter().map(|kind| kind.bytes).sum();
        assert_eq!(
            kinds(told + (8 << 20), &all).as_deref(),
            Some(
                "80 MiB of main.request (20 480 objects), 30 MiB in 7 680 objects of 4 096 bytes without pointers, 640 KiB in \
                 20 objects of 32 KiB without pointers, 6 KiB in 1 object of 6 400 bytes with pointers, 100 KiB in 2 large \
                 objects without pointers, 8 MiB of others"
            )
        );
        assert_eq!((kinds(64, &[]), kinds(told, &all).map(|said| said.contains("others"))), (None, Some(false)));
    }
}
