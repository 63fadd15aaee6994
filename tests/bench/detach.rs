//! How long probes take to come and to go, under full load.

use anyhow::Context as _;
use parkwarden::probe::{EMPTY, Options, Prober, Uprobes};
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde_json::Value;
use std::num::NonZeroU32;
use xtask::toolchain;

use crate::document::Section;
use crate::measure::{TIMES, median, milliseconds, timed};

/// What is probed, in the order of a watch.
const FUNCTIONS: [&str; 4] = ["runtime.newproc1", "runtime.gopark", "runtime.ready", "runtime.goexit1"];

pub fn run() -> anyhow::Result<Section> {
    let program = fixture("spin", toolchain::NEWEST, BuildFlags::Default);
    let mut rows = Vec::new();
    let idle = ("idle", ["-pairs", "0", "-spawners", "0"]);
    let busy = ("ping-pong and spawn loops", ["-pairs", "2", "-spawners", "2"]);
    let ways = [Uprobes::Multi, Uprobes::PerfEvent];
    for ((name, arguments), uprobes) in [idle, busy].into_iter().flat_map(|program| ways.map(|way| (program, way))) {
        let (running, _): (_, Value) = Target::ready(&program, arguments);
        let target = parkwarden::live::Target::open(running.pid())?;
        let options = Options { further: vec![EMPTY], uprobes, ..Options::of_nothing() };
        let binary = target.binary();
        let symbols = parkwarden::golang::symbols::lookup(target.process().exe(), &binary.elf, &FUNCTIONS)?;
        let offsets: Option<Vec<u64>> =
            symbols.iter().map(|symbol| binary.elf.file_offset(symbol.as_ref()?.address)).collect();
        let offsets = offsets.context("the symbols")?;
        let pid = NonZeroU32::new(running.pid()).context("a pid")?;
        let (mut attach, mut remove) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let prober = Prober::load(&options)?;
            let (probes, seconds) = timed(|| prober.attach_empty(pid, target.process().exe(), &offsets));
            attach.push(seconds);
            let probes = probes?;
            remove.push(timed(|| drop(probes)).1);
        }
        rows.push(vec![
            name.to_owned(),
            format!("`{uprobes}`"),
            milliseconds(median(attach)),
            milliseconds(median(remove)),
        ]);
    }
    Ok(Section {
        title: "Attaching and detaching",
        about: "Four probes, attached to a program and removed again, in the kernel's two ways of attaching: by links \
                (`multi`, Linux 6.10 and later) and by perf events. A breakpoint is gone when its removal begins; then the \
                kernel waits for every CPU, with links for all at once, with perf events for each probe, one after the other on \
                the whole host. Medians of five."
            .to_owned(),
        columns: vec!["program", "by", "attach", "detach"],
        rows,
    })
}
