//! The host that parkwarden runs on.

use std::fs;
use std::io;
use std::path::Path;

use super::Host;
use crate::config::Mode;
use crate::exit::chain;
use crate::probe::calibrate::{self, CalibrateError, Costs};
use crate::probe::{Refused, Uprobes, check};

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

    fn attach(&self) -> Result<(), Refused> {
        check::attach(Uprobes::here())
    }

    fn refused_modes(&self) -> Result<Vec<(Mode, String)>, String> {
        check::refused(&Mode::PROBED).map_err(|error| chain(&error))
    }

    fn hit_costs(&self) -> Result<Costs, CalibrateError> {
        calibrate::cache::costs(Uprobes::here())
    }
}
