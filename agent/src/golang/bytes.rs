//! Little-endian reads that answer `None` outside the buffer, so that no parser indexes with an untrusted number.

/// The `N` bytes at `at`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array(bytes, at).map(i32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Go's `binary.Uvarint`; moves `at` behind it.
pub(super) fn uvarint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The NUL-terminated bytes at `at`, if they are at most `limit` long.
pub(super) fn c_str(bytes: &[u8], at: usize, limit: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    let window = &rest[..rest.len().min(limit.saturating_add(1))];
    window.iter().position(|byte| *byte == 0).map(|end| &window[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_bounded() {
        let mut at = 0;
        assert_eq!(uvarint(&[0xac, 0x02, 0xff], &mut at), Some(300));
        assert_eq!(at, 2);
        assert_eq!(uvarint(&[0xff; 32], &mut 0), None);
        assert_eq!(uvarint(&[0x80], &mut 0), None);
    }

    #[test]
    fn strings_need_their_terminator() {
        assert_eq!(c_str(b"ab\0c", 0, 8), Some(&b"ab"[..]));
        assert_eq!(c_str(b"ab\0c", 3, 8), None);
        assert_eq!(c_str(b"abcdef\0", 0, 3), None);
        assert_eq!(c_str(b"a\0", 9, 3), None);
    }
}
