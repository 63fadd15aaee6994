//! How `runtime.allgs` is found without symbols, against what the symbols of the same program say.

use std::fs::File;

use parkwarden::discover::process::Process;
use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::references;
use parkwarden::memory::globals::Search;
use parkwarden::memory::process::ProcessMemory;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
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
        // The same addresses: symbols and debugging information are not loaded.
        let programs = [BuildFlags::NoDwarf, BuildFlags::Stripped].map(|flags| fixture("leaks", version, flags));
        let mut names = vec![
            "runtime.allgs",
            "runtime.firstmoduledata",
            "runtime.allm",
            "runtime.mheap_",
            "runtime.semtable",
            "runtime.allfin",
        ];
        if version >= "1.25" {
            names.push("runtime.gcCleanups");
        }
        let [with, without] = programs.map(|program| {
            let (process, _): (_, Statement) = Target::ready(&program, ["-n", "3"]);
            let target = parkwarden::target::Target::open(process.pid()).expect("it can be looked at");
            let found: Vec<_> = names.iter().map(|name| (*name, target.variable(name))).collect();
            found
        });
        assert_eq!(without, with, "Go {version}");
        assert!(with.iter().all(|(_, address)| address.is_some()), "Go {version}: {with:?}");
    }
}
