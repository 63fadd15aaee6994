//! The host that parkwarden runs on.

use std::fs;
use std::io;
use std::path::Path;

use super::Host;
use crate::probe::Uprobes;
use crate::probe::calibrate::{self, CalibrateError, Costs};
use crate::probe::check;

/// The real host: asks the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveHost;

impl Host for LiveHost {
    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn load_program(&self) -> io::Result<()> {
        check::program().map(drop)
    }

    fn create_ring_buffer(&self) -> io::Result<()> {
        check::ring_buffer().map(drop)
    }

    fn uprobes(&self) -> Uprobes {
        Uprobes::here()
    }

    fn open_uprobe(&self) -> io::Result<()> {
        match Uprobes::here() {
            Uprobes::Multi => self.attach_with_cookie(),
            Uprobes::PerfEvent => check::uprobe().map(drop),
        }
    }

    fn attach_with_cookie(&self) -> io::Result<()> {
        match Uprobes::here() {
            Uprobes::Multi => check::multi().map(drop),
            Uprobes::PerfEvent => check::link(&check::program()?, &check::uprobe()?).map(drop),
        }
    }

    fn hit_costs(&self) -> Result<Costs, CalibrateError> {
        calibrate::cache::costs(Uprobes::here())
    }
}
