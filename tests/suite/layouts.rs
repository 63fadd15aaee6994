//! The table of runtime layouts that parkwarden carries is what the toolchains say today.

use parkwarden::golang::table;
use xtask::layouts;

#[test]
fn the_table_is_what_the_toolchains_describe() {
    let generated = layouts::generate().expect("the toolchains describe their runtimes").render();
    let bundled = table::bundled_text();
    let differing = bundled.lines().zip(generated.lines()).find(|(ours, theirs)| ours != theirs);
    assert_eq!(differing, None, "the table is not what the toolchains describe: run `cargo xtask layouts`");
    assert!(bundled == generated, "the table has other lines than the toolchains describe: run `cargo xtask layouts`");
}
