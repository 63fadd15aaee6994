//! The table of runtime layouts that parkwarden carries is what the toolchains say today. `cargo xtask layouts` writes it.

use parkwarden::golang::table;
use parkwarden_tests::layouts;

#[test]
fn the_table_is_what_the_toolchains_describe() {
    let generated = layouts::generate().expect("the toolchains describe their runtimes").render();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(layouts::path(), generated).expect("written");
    }
    let bundled = table::bundled_text();
    let differing = bundled.lines().zip(generated.lines()).find(|(ours, theirs)| ours != theirs);
    assert_eq!(differing, None, "the table is not what the toolchains describe: run `cargo xtask layouts`");
    assert!(bundled == generated, "the table has other lines than the toolchains describe: run `cargo xtask layouts`");
}
