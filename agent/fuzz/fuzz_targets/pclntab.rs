//! Function tables alone, as stripped binaries have them too. The first byte chooses the Go version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::golang::pclntab::PcLnTab;
use parkwarden::golang::version::GoVersion;

fuzz_target!(|bytes: &[u8]| {
    let Some((minor, data)) = bytes.split_first() else { return };
    let Some(version) = GoVersion::parse(&format!("go1.{}.0", 18 + minor % 10)) else { return };
    let Ok(mut table) = PcLnTab::new(data.to_vec(), 0x40_0000, &version) else { return };
    // Function data is more of the same bytes.
    table.set_funcdata(data.to_vec());
    for func in table.functions().take(32) {
        for pc in [func.entry, func.entry.wrapping_add(1), func.end.wrapping_sub(1)] {
            let _ = table.frames(pc);
            let _ = table.sp_delta(&func, pc);
            let _ = table.pcdata(&func, 0, pc);
        }
        for index in 0..4 {
            let _ = table.funcdata(&func, index);
        }
    }
    let _ = table.functions_named(&["runtime.gopark", "runtime.ready"]);
    let _ = table.inlined_into(&["runtime.gopark"]);
});
