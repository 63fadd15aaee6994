use super::super::layout::StructLayout;
use super::*;

fn version(text: &str) -> GoVersion {
    GoVersion::parse(text).unwrap()
}

fn described(text: &str, arch: Arch, goid: u32, parent: Option<u32>, reasons: &[&str]) -> Described {
    let mut fields = BTreeMap::from([("goid".to_owned(), Field { offset: goid, size: 8 })]);
    fields.extend(parent.map(|offset| ("parentGoid".to_owned(), Field { offset, size: 8 })));
    Described {
        version: version(text),
        arch,
        structs: Structs::from([("runtime.g".to_owned(), StructLayout { size: goid + 300, fields })]),
        wait_reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
    }
}

fn small() -> KnownLayouts {
    KnownLayouts::new(vec![
        described("go1.22.10", Arch::Amd64, 152, Some(272), &["", "IO wait", "new"]),
        described("go1.22.10", Arch::Arm64, 160, Some(272), &["", "IO wait", "new"]),
        described("go1.19.8", Arch::Amd64, 152, None, &["", "IO wait"]),
        described("go1.19.8", Arch::Arm64, 152, None, &["", "IO wait"]),
    ])
}

#[test]
fn what_is_written_is_read_again() {
    let text = small().render();
    assert_eq!(KnownLayouts::parse(&text).unwrap(), small(), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "versions\tgo1.19.8\tgo1.22.10",
        "runtime.g\t(size)\tamd64\t1.19=452",
        "runtime.g\t(size)\tarm64\t1.19=452\t1.22=460",
        "runtime.g\tgoid\tamd64\t1.19=152:8",
        "runtime.g\tgoid\tarm64\t1.19=152:8\t1.22=160:8",
        "runtime.g\tparentGoid\t*\t1.19=-\t1.22=272:8",
        "wait reason\t0\t*\t1.19=\"\"",
        "wait reason\t1\t*\t1.19=\"IO wait\"",
        "wait reason\t2\t*\t1.19=-\t1.22=\"new\"",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn versions_between_and_after_are_unknown() {
    let table = small();
    assert!(table.structs(&version("go1.22.99"), Arch::Arm64).is_ok());
    for unknown in ["go1.18", "go1.20.14", "go1.23.1"] {
        let reason = table.structs(&version(unknown), Arch::Amd64).unwrap_err();
        assert_eq!(reason, "the table of layouts describes Go 1.19, 1.22 only", "{unknown}");
        assert_eq!(table.wait_reasons(&version(unknown)), None);
    }
}

#[test]
fn experiments_are_known_one_by_one() {
    let table = small();
    assert!(table.structs(&version("go1.22.1 X:boringcrypto,rangefunc"), Arch::Amd64).is_ok());
    for text in ["go1.22.1 X:rangefunc,staticlockranking", "go1.22.1-X:staticlockranking", "go1.22.1 X:"] {
        let reason = table.structs(&version(text), Arch::Amd64).unwrap_err();
        assert!(reason.contains("which no table of layouts describes"), "{reason}");
    }
    assert!(table.structs(&version("go1.22.1-X:boringcrypto"), Arch::Amd64).is_ok());
}

#[test]
fn damaged_lines_are_named() {
    for (text, what) in [
        ("versions\tnone", "not a Go version"),
        ("versions\tgo1.19\nruntime.g", "no field"),
        ("versions\tgo1.19\nruntime.g\tgoid\tmips\t1.19=1:2", "unknown architecture"),
        ("versions\tgo1.19\nruntime.g\tgoid\t*\t1.19", "not a version's value"),
        ("versions\tgo1.19\nruntime.g\tgoid\t*\t1.19=12", "not a value"),
        ("versions\tgo1.19\nwait reason\t7\t*\t1.19=\"x\"", "not a value"),
    ] {
        assert_eq!(KnownLayouts::parse(text).map_err(|error| error.what), Err(what), "{text}");
    }
}

#[test]
fn the_bundled_table_has_what_every_layout_needs() {
    let table = KnownLayouts::parse(BUNDLED).unwrap();
    assert_eq!(table.render(), BUNDLED);
    let minors: Vec<u32> =
        table.described.iter().filter(|known| known.arch == Arch::Amd64).map(|known| known.version.minor).collect();
    for minor in 21..=27 {
        assert!(minors.contains(&minor), "{minor}");
    }
    for known in &table.described {
        super::super::layout::RuntimeLayout::from_structs(&known.structs).unwrap();
        assert_eq!(known.wait_reasons.get(2).map(String::as_str), Some("IO wait"), "{}", known.version);
        assert!(known.wait_reasons.iter().any(|reason| reason == "chan send"), "{}", known.version);
        assert!(known.wait_reasons.len() > 25, "{}", known.version);
    }
}

#[test]
fn contradictions_are_told_field_by_field() {
    let structs = |goid| described("go1.22.1", Arch::Amd64, goid, None, &[]).structs;
    assert_eq!(contradictions(&structs(152), &structs(152)), [""; 0]);
    let expected = ["runtime.g has 460 bytes, not 452", "runtime.g.goid is at 160, not 152"];
    assert_eq!(contradictions(&structs(160), &structs(152)), expected);
}
