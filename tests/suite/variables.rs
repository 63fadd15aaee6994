//! How `runtime.allgs` is found without symbols, against what the symbols of the same program say.

use std::fs::File;

use parkwarden::discover::process::Process;
use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::layout_table::LayoutTable as _;
use parkwarden::golang::{references, symbols, table, variables};
use parkwarden::memory::globals::Search;
use parkwarden::memory::process::ProcessMemory;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain;

#[test]
fn a_search_of_the_variables_finds_what_the_symbol_says() {
    for version in toolchain::VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Pie] {
            let said = format!("Go {version}, {}", flags.name());
            let program = fixture("leaks", version, flags);
            let (target, _): (_, Statement) = Target::ready(&program, ["-n", "3"]);
            let process = Process::open(target.pid()).expect("it lives");
            let binary = GoBinary::parse(process.exe()).expect("a Go program");
            let slide = process.slide(&binary.elf).expect("it is mapped");
            let symbol = binary.allgs.expect("a symbol").wrapping_add(slide);
            let main = binary.function("runtime.main").expect("every program has it").entry.wrapping_add(slide);
            let memory = ProcessMemory::new(target.pid());
            let search = Search::new(&memory, binary.layout.g, main);
            let writable: Vec<_> = binary
                .elf
                .segments
                .iter()
                .filter(|segment| segment.write)
                .map(|segment| segment.vaddr.wrapping_add(slide)..(segment.vaddr + segment.memsz).wrapping_add(slide))
                .collect();
            assert_eq!(search.within(&writable), Ok(symbol), "{said}");
            let allgadd = binary.function("runtime.allgadd").expect("it is not inlined");
            let code = binary.code(process.exe(), &allgadd).expect("code");
            let named = references::addresses(&code, allgadd.entry.wrapping_add(slide), binary.arch);
            assert_eq!(search.among(&named), Ok(symbol), "{said}");
        }
    }
}

#[test]
fn the_code_for_arm64_names_it_too() {
    for version in toolchain::VERSIONS {
        let file = File::open(fixture("frames", version, BuildFlags::Arm64)).expect("readable");
        let binary = GoBinary::parse(&file).expect("a Go program");
        let allgadd = binary.function("runtime.allgadd").expect("it is not inlined");
        let code = binary.code(&file, &allgadd).expect("code");
        let named = references::addresses(&code, allgadd.entry, binary.arch);
        assert!(named.contains(&binary.allgs.expect("a symbol")), "Go {version}: {named:x?}");
    }
}

#[test]
fn other_variables_are_where_the_symbols_say() {
    for version in toolchain::VERSIONS {
        let mut names = vec!["runtime.allgs", "runtime.allm", "runtime.mheap_", "runtime.semtable", "runtime.allfin"];
        if version >= "1.25" {
            names.push("runtime.gcCleanups");
        }
        // One with much of the library, and one with no more of the runtime than every program has.
        for (program, arguments) in [("leaks", &["-n", "3"][..]), ("quotes", &[])] {
            // The same places: symbols and debugging information are not loaded. But the flags are recorded in the program,
            // and all variables may begin a little later.
            let [with, without] = [BuildFlags::NoDwarf, BuildFlags::Stripped].map(|flags| {
                let (process, _): (_, Value) = Target::ready(&fixture(program, version, flags), arguments);
                let target = parkwarden::live::Target::open(process.pid()).expect("it can be looked at");
                let first = target.variable("runtime.firstmoduledata").expect("every program has it");
                let place = |name: &&'static str| (*name, target.variable(name).map(|at| at.wrapping_sub(first)));
                names.iter().map(place).collect::<Vec<_>>()
            });
            assert_eq!(without, with, "Go {version}, {program}");
            assert!(with.iter().all(|(_, address)| address.is_some()), "Go {version}, {program}: {with:?}");
        }
    }
}

/// What the readers of the runtime look for, besides what only some programs or versions have.
const RUNTIME: [&str; 16] = [
    "runtime.sched",
    "runtime.allp",
    "runtime.allm",
    "runtime.memstats",
    "runtime.gcController",
    "runtime.work",
    "runtime.gcCPULimiter",
    "runtime.mheap_",
    "runtime.runtimeInitTime",
    "runtime.mProfCycle",
    "runtime.MemProfileRate",
    "runtime.blockprofilerate",
    "runtime.allfin",
    "runtime.startingStackSize",
    "runtime.extraMLength",
    "runtime.extraMInUse",
];

/// Those of them that Go 1.19 has not, or not as 32 bits.
const SINCE_1_21: [&str; 2] = ["runtime.extraMLength", "runtime.extraMInUse"];
/// Go 1.25 and later.
const FINALIZERS: [&str; 2] = ["runtime.finqueued", "runtime.finexecuted"];

#[test]
fn code_names_the_variables_of_the_runtime_where_the_symbols_have_them() {
    let mut wrong = Vec::new();
    for version in toolchain::available() {
        for (program, flags) in [
            ("quotes", BuildFlags::NoDwarf),
            ("leaks", BuildFlags::NoDwarf),
            ("leaks", BuildFlags::Pie),
            ("leaks", BuildFlags::Unoptimized),
            ("vitals", BuildFlags::Cgo),
        ] {
            let mut names = RUNTIME.to_vec();
            if version == toolchain::DEBIAN {
                names.retain(|name| !SINCE_1_21.contains(name));
            }
            if version >= "1.25" {
                names.extend(FINALIZERS);
            }
            let said = format!("Go {version}, {program}, {}", flags.name());
            let file = File::open(fixture(program, version, flags)).expect("readable");
            let binary = GoBinary::parse(&file).expect("a Go program");
            let structs = table::bundled().structs(&binary.version, binary.arch).expect("a known version");
            let symbols = symbols::lookup(&file, &binary.elf, &names).expect("symbols");
            for (name, symbol) in names.iter().zip(symbols) {
                let places = variables::places(name, &binary, &file, &structs);
                let place = symbol.expect("a symbol").address;
                // Refused is no lie; somewhere else would be one.
                match places {
                    Ok(places) if places.contains(&place) => {}
                    Err(_) if flags == BuildFlags::Unoptimized => {}
                    other => wrong.push(format!("{said}, {name}: {other:x?}, not {place:x}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
