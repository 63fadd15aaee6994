//! What parkwarden reads from Go binaries, against what the toolchains and the programs say themselves.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use parkwarden::golang::binary::{GoBinary, SymbolSource};
use parkwarden::golang::layout::LayoutSource;
use parkwarden::golang::layout_table::LayoutTable as _;
use parkwarden::golang::pclntab::FuncId;
use parkwarden::golang::{Arch, Frame, table};
use parkwarden_tests::{BuildFlags, fixture, layouts};
use xtask::toolchain;

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()))
}

fn parse(path: &Path) -> GoBinary {
    GoBinary::parse(&open(path)).unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()))
}

/// Frames as the program prints them: the runtime shortens type arguments.
fn printed(frame: &Frame) -> String {
    let name = &frame.function;
    let name = match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => format!("{}[...]{}", &name[..open], &name[close + 1..]),
        _ => name.clone(),
    };
    format!("{name}\t{}\t{}", frame.file, frame.line)
}

#[test]
fn frames_are_what_the_program_says_on_every_go_version() {
    for version in toolchain::VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Pie] {
            let path = fixture("frames", version, flags);
            let said = format!("Go {version}, {}", flags.name());
            let binary = parse(&path);
            assert_eq!(binary.pie, flags == BuildFlags::Pie, "{said}");
            compare_frames(&path, &binary, &said);
        }
    }
}

fn compare_frames(path: &Path, binary: &GoBinary, said: &str) {
    let table = &binary.pclntab;
    let main = binary.function("main.main").expect("main.main").entry as i64;
    let ends = [table.text_start() as i64, table.functions().map(|func| func.end).max().expect("functions") as i64];
    // 13 is prime to the alignment of functions and blocks, so that every part of an instruction is met.
    let arguments = [(ends[0] - main).to_string(), (ends[1] - main).to_string(), "13".to_owned()];
    let output = Command::new(path).args(arguments).output().expect("running the fixture");
    assert!(output.status.success(), "{said}: {}", String::from_utf8_lossy(&output.stderr));
    let pc = |relative: &str| (main + relative.parse::<i64>().expect("a number")) as u64;

    let mut expected: Vec<String> = Vec::new();
    let (mut stacks, mut inlined, mut points) = (0, 0, 0);
    let text = String::from_utf8(output.stdout).expect("text");
    for line in text.lines() {
        let (kind, rest) = line.split_at(2);
        match kind {
            "S " => {
                assert!(expected.is_empty(), "{said}: more frames than the program has: {expected:?}");
                // One return address for each frame, inlined ones included: expand from the innermost of each.
                let mut pcs = rest.split(' ').map(pc);
                while let Some(at) = pcs.next() {
                    let frames = table.frames(at - 1);
                    assert!(!frames.is_empty(), "{said}: no function at {at:#x}");
                    assert!(pcs.by_ref().take(frames.len() - 1).count() == frames.len() - 1, "{said}: {frames:?}");
                    inlined += frames.iter().filter(|frame| frame.inlined).count();
                    expected.extend(frames.iter().map(printed));
                }
                expected.reverse();
                stacks += 1;
            }
            "F " => assert_eq!(expected.pop().as_deref(), Some(rest), "{said}"),
            _ => {
                let (at, want) = rest.split_once('\t').expect("columns");
                let at = pc(at);
                // The runtime does not take the entry of a function for a return address, has no name for the first
                // function of its name table, and shows a position that no table has as "?".
                if table.func(at + 1).is_none_or(|func| func.entry == at + 1) {
                    continue;
                }
                let frames = table.frames(at);
                let innermost = frames.first().unwrap_or_else(|| panic!("{said}: no function at {at:#x}"));
                let got = printed(innermost);
                let want = want.replace("\t?\t0", "\t\t0");
                if want.starts_with('\t') {
                    assert!(got.ends_with(&want), "{said}: {got} at {at:#x}");
                } else {
                    assert_eq!(got, want, "{said} at {at:#x}");
                }
                points += 1;
            }
        }
    }
    assert!(expected.is_empty(), "{said}: {expected:?}");
    assert!(stacks >= 14 && inlined >= 20 && points > 20_000, "{said}: {stacks} {inlined} {points}");
}

#[test]
fn layouts_are_those_of_the_runtimes() {
    // `src/runtime/runtime2.go` of each version, as its compiler lays it out for 64-bit machines: size of g, then
    // sched.bp, atomicstatus, waitreason, parentGoid, gopc, startpc, waiting; and m.curg.
    let known = [
        ("1.21", [408, 104, 144, 176, 272, 280, 296, 312], 192),
        ("1.22", [424, 104, 144, 176, 272, 280, 296, 312], 192),
        ("1.23", [432, 104, 152, 184, 280, 288, 304, 320], 192),
        ("1.24", [440, 104, 152, 184, 280, 288, 304, 320], 192),
        ("1.25", [440, 96, 144, 176, 272, 280, 296, 312], 184),
        ("1.26", [456, 96, 144, 176, 280, 288, 304, 320], 184),
        ("1.27", [456, 96, 144, 176, 280, 288, 304, 320], 184),
    ];
    for version in toolchain::VERSIONS {
        let binary = parse(&fixture("frames", version, BuildFlags::Default));
        let (g, m) = (binary.layout.g, binary.layout.m);
        let found = [
            g.size,
            g.sched_bp,
            g.atomicstatus,
            g.waitreason,
            g.parent_goid.expect("parentGoid"),
            g.gopc,
            g.startpc,
            g.waiting,
        ];
        let minor = version.rsplit_once('.').expect("a patch number").0;
        let (_, fields, curg) = known.iter().find(|(known, ..)| *known == minor).expect("a known version");
        assert_eq!((&found, m.curg), (fields, *curg), "Go {version}");
        assert_eq!(g.sched_lr + 8, g.sched_bp, "Go {version}");
        assert_eq!((g.stack_lo, g.stack_hi, g.m, g.sched_sp, g.sched_pc, m.g0), (0, 8, 48, 56, 64, 0), "Go {version}");
    }
}

#[test]
fn wait_reasons_are_those_of_the_toolchains() {
    for version in toolchain::VERSIONS {
        let goroot = toolchain::goroot(version).expect("a toolchain");
        let source = fs::read_to_string(goroot.join("src/runtime/runtime2.go")).expect("the runtime's source");
        let expected = layouts::wait_reasons_of(&source).expect("wait reasons");
        assert!(expected.len() > 30, "Go {version}: {expected:?}");
        for flags in [BuildFlags::Default, BuildFlags::Pie] {
            let binary = parse(&fixture("frames", version, flags));
            assert_eq!(binary.wait_reasons, expected, "Go {version}, {}, from the binary", flags.name());
            let table = table::bundled().wait_reasons(&binary.version).expect("a table");
            assert_eq!(table, expected, "Go {version}, from the table");
        }
    }
}

#[test]
fn the_runtimes_functions_are_known_for_what_they_are() {
    for version in toolchain::VERSIONS {
        let path = fixture("frames", version, BuildFlags::Default);
        let binary = parse(&path);
        for (name, id, bottom) in [
            ("runtime.goexit", FuncId::Goexit, true),
            ("runtime.mstart", FuncId::Mstart, true),
            ("runtime.rt0_go", FuncId::Rt0Go, true),
            ("runtime.main", FuncId::RuntimeMain, false),
            ("runtime.systemstack", FuncId::Systemstack, false),
            ("runtime.mcall", FuncId::Mcall, false),
            ("runtime.sigpanic", FuncId::Sigpanic, false),
            ("runtime.gopark", FuncId::Normal, false),
            // Has a wrapper of the same name, for calls from assembly.
            ("runtime.newproc", FuncId::Normal, false),
        ] {
            let func = binary.function(name).unwrap_or_else(|| panic!("Go {version}: no {name}"));
            assert_eq!((func.id, func.is_stack_bottom()), (id, bottom), "Go {version}: {name}");
            let code = binary.code(&open(&path), &func).expect("code");
            assert_eq!(code.len() as u64, func.end - func.entry, "Go {version}: {name}");
        }
    }
}

#[test]
fn every_way_of_building_is_understood_or_refused_with_the_reason() {
    let ends = [toolchain::VERSIONS.iter().min(), toolchain::VERSIONS.iter().max()];
    for version in ends.into_iter().flatten() {
        for flags in [
            BuildFlags::Trimpath,
            BuildFlags::External,
            BuildFlags::ExternalStatic,
            BuildFlags::StaticPie,
            BuildFlags::Unoptimized,
            BuildFlags::PlainDwarf,
            BuildFlags::Arm64,
        ] {
            let binary = parse(&fixture("frames", version, flags));
            let said = format!("Go {version}, {}", flags.name());
            assert_eq!(binary.layout_source, LayoutSource::Dwarf, "{said}");
            assert_eq!(binary.symbol_source, SymbolSource::Symtab, "{said}");
            assert_eq!(binary.arch == Arch::Arm64, flags == BuildFlags::Arm64, "{said}");
            assert!(binary.allgs.is_some() && binary.moduledata.is_some(), "{said}");
            assert_eq!(binary.build.path.as_deref(), Some("example.com/frames"), "{said}");
            let main = binary.function("main.main").unwrap_or_else(|| panic!("{said}: no main.main"));
            let frames = binary.pclntab.frames(main.entry);
            let [frame] = &frames[..] else { panic!("{said}: {frames:?}") };
            assert!(frame.file.ends_with("main.go") && frame.line > 0, "{said}: {frame:?}");
        }
        for flags in [BuildFlags::Stripped, BuildFlags::NoDwarf, BuildFlags::PieStripped, BuildFlags::Arm64Stripped] {
            let binary = parse(&fixture("frames", version, flags));
            let said = format!("Go {version}, {}", flags.name());
            assert_eq!(binary.layout_source, LayoutSource::Table, "{said}");
            let like = if flags == BuildFlags::Arm64Stripped { BuildFlags::Arm64 } else { BuildFlags::Default };
            let described = parse(&fixture("frames", version, like));
            assert_eq!(binary.layout, described.layout, "{said}");
            assert_eq!(binary.wait_reasons, described.wait_reasons, "{said}");
            assert_eq!(described.layout_differs, [""; 0], "{said}");
        }
    }
}
