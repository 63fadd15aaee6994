use proptest::prelude::*;

use super::*;

fn version() -> GoVersion {
    GoVersion::parse("go1.22.1").unwrap()
}

/// A table of two functions, `main.a` at 0x1000 and `main.b` at 0x1010, the second with a line table.
pub(crate) fn small() -> Vec<u8> {
    let mut data = vec![0u8; 0x200];
    let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xffff_fff1u32.to_le_bytes());
    put(6, &[1, 8]);
    for (index, word) in [2u64, 1, 0x1000, 0x60, 0x80, 0x90, 0xa0, 0xc0].iter().enumerate() {
        put(8 + index * 8, &word.to_le_bytes());
    }
    put(0x60, b"main.a\0main.b\0");
    put(0x80, &0u32.to_le_bytes());
    put(0x90, b"/src/a.go\0");
    // File 0 for 16 bytes; line 7 for 4 bytes, then 9; depth 0 for 1 byte, then 24.
    put(0xa1, &[2, 16, 0]);
    put(0xa8, &[16, 4, 4, 12, 0]);
    put(0xb0, &[2, 1, 48, 15, 0]);
    for (index, word) in [0u32, 0x20, 0x10, 0x60, 0x20].iter().enumerate() {
        put(0xc0 + index * 4, &word.to_le_bytes());
    }
    let func = |entry: u32, name: u32, tables: [u32; 3], id: u8, flags: u8| {
        let mut bytes = Vec::new();
        for word in [entry, name, 0, 0, tables[0], tables[1], tables[2], 0, 0, 1] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&[id, flags, 0, 0]);
        bytes
    };
    put(0xe0, &func(0, 0, [0, 0, 0], 7, 1));
    put(0x120, &func(0x10, 7, [0x10, 1, 8], 0, 0));
    data
}

#[test]
fn finds_functions_by_address_and_name() {
    let table = PcLnTab::new(small(), 0x1000, &version()).unwrap();
    let name = |pc| table.func(pc).map(|func| func.name);
    assert_eq!([name(0xfff), name(0x1000), name(0x100f)], [None, Some("main.a"), Some("main.a")]);
    assert_eq!([name(0x1010), name(0x101f), name(0x1020)], [Some("main.b"), Some("main.b"), None]);
    let named = table.functions_named(&["main.b", "main", "main.a"]);
    let entries: Vec<_> = named.iter().map(|func| func.map(|func| func.entry)).collect();
    assert_eq!(entries, [Some(0x1010), None, Some(0x1000)]);
    let a = table.func(0x1000).unwrap();
    // Number 7 is `goexit` up to Go 1.21 and `gcBgMarkWorker` after.
    assert_eq!((a.id, a.is_stack_bottom()), (FuncId::GcBgMarkWorker, true));
}

#[test]
fn decodes_lines_and_depths() {
    let table = PcLnTab::new(small(), 0x1000, &version()).unwrap();
    let b = table.func(0x1010).unwrap();
    assert_eq!(table.file_line(&b, 0x1013), Some(("/src/a.go", 7)));
    assert_eq!(table.file_line(&b, 0x1014), Some(("/src/a.go", 9)));
    assert_eq!([table.sp_delta(&b, 0x1010), table.sp_delta(&b, 0x1011)], [Some(0), Some(24)]);
    let frames = table.frames(0x1014);
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].function.as_str(), frames[0].line, frames[0].inlined), ("main.b", 9, false));
    assert!(table.frames(0x5000).is_empty());
}

#[test]
fn says_which_format_is_too_old() {
    for (magic, name) in [(0xffff_fffau32, "Go 1.16 or 1.17"), (0xffff_fffb, "Go 1.15 or earlier")] {
        let mut data = small();
        data[..4].copy_from_slice(&magic.to_le_bytes());
        assert_eq!(PcLnTab::new(data, 0, &version()).unwrap_err(), PcLnTabError::TooOld(name));
    }
}

/// Uses every entry point on a table that parsed.
fn exercise(data: Vec<u8>) {
    let Ok(mut table) = PcLnTab::new(data.clone(), 0x1000, &version()) else { return };
    table.set_funcdata(data);
    for pc in [0, 0x1000, 0x1008, 0x1010, 0x1014, 0x101f, u64::MAX] {
        table.frames(pc);
        if let Some(func) = table.func(pc) {
            table.sp_delta(&func, pc);
        }
    }
    table.functions_named(&["main.a", ""]);
    table.last_funcdata();
    table.inlined_into(&["main.a", ""]);
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        exercise(bytes);
    }

    #[test]
    fn no_change_does_harm(changes in prop::collection::vec((0usize..0x200, any::<u8>()), 1..24)) {
        let mut data = small();
        for (at, byte) in changes {
            data[at] = byte;
        }
        exercise(data);
    }
}

#[test]
fn tables_that_never_advance_end() {
    let mut data = small();
    // Two million steps that change the value but not the program counter, as the line table of `main.b`.
    let table = data.len() as u32 - 0xa0;
    data.resize(data.len() + (4 << 20), 0);
    for step in data[0x200..].chunks_exact_mut(2) {
        step.copy_from_slice(&[2, 0]);
    }
    data[0x120 + 24..0x120 + 28].copy_from_slice(&table.to_le_bytes());
    let table = PcLnTab::new(data, 0x1000, &version()).unwrap();
    let frames = table.frames(0x1014);
    assert_eq!((frames[0].function.as_str(), frames[0].line), ("main.b", 0));
}
