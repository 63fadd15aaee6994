//! What a probe hit costs on this host, for people.

use std::error::Error;
use std::fmt::{self, Write as _};

use super::{Check, CheckStatus, Host, check};
use crate::config::Mode;
use crate::golang::sites::SiteClass;
use crate::probe::calibrate::{AFTERMATH, Costs, Prices};
use parkwarden_common::record::Kind;

/// The costs; where they cannot be measured, a check that says so is added.
pub(super) fn measure(host: &dyn Host, checks: &mut Vec<Check>) -> Option<Costs> {
    match host.hit_costs() {
        Ok(costs) => Some(costs),
        Err(error) => {
            let mut detail = format!("not measured: {error}");
            if let Some(cause) = error.source() {
                detail.push_str(&format!(": {cause}"));
            }
            let remedy = "none needed to watch with --mode trace, filter, births or census; --mode auto keeps to its budget by \
                          measured costs";
            checks.push(check("hit costs", CheckStatus::Warning, detail, Some(remedy)));
            None
        }
    }
}

/// The table: a line for each mode, program and class of place.
pub(super) fn write(text: &mut String, costs: &Costs) -> fmt::Result {
    writeln!(text, "\nWhat one probe hit takes of the watched program's time, in nanoseconds, measured on this host:")?;
    table(text, "right after another", &costs.warm)?;
    table(text, "in a server", &costs.cold)?;
    writeln!(
        text,
        "A creation that tells which calls led to it takes {} more.\nWatching reckons with {AFTERMATH} % more, for what a hit does \
         to the caches of a busy program.",
        costs.stack
    )
}

fn table(text: &mut String, which: &str, prices: &Prices) -> fmt::Result {
    writeln!(text, "{which:21}{:>9}{:>9}{:>9}{:>9}{:>9}", "empty", "created", "parked", "readied", "exited")?;
    let classes =
        [("nop5", SiteClass::Nop5), ("emulated", SiteClass::Emulated), ("single-step", SiteClass::SingleStep)];
    for (mode, word) in [(Mode::Trace, "trace"), (Mode::Filter, "filter"), (Mode::Births, "births")] {
        for (name, class) in classes {
            let empty = match class {
                SiteClass::Nop5 => prices.sites.nop5,
                SiteClass::Emulated => Some(prices.sites.emulated),
                SiteClass::SingleStep => Some(prices.sites.single_step),
            };
            let Some(empty) = empty else { continue };
            write!(text, "{:21}{empty:>9}", format!("{word}, {name}"))?;
            for kind in Kind::PROBED {
                match mode.probes(kind) {
                    true => write!(text, "{:>9}", prices.measured_ns(mode, kind, class))?,
                    false => write!(text, "{:>9}", "-")?,
                }
            }
            writeln!(text)?;
        }
    }
    Ok(())
}
