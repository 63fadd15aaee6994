//! Which Linux this is, as far as it decides what probes can do. Where the kernel can be asked by trying, that decides.

/// Major and minor version.
pub type KernelVersion = (u32, u32);

/// The first with attach cookies, which configure probes.
pub const OLDEST: KernelVersion = (5, 15);

/// The first whose links of uprobes mean processes, not threads, by a pid (46ba0e49b642, "bpf: fix multi-uprobe PID filtering
/// logic").
pub(super) const MULTI_BY_PROCESS: KernelVersion = (6, 10);

/// That of the running kernel; zeros where it does not say.
pub fn running() -> KernelVersion {
    parse(&rustix::system::uname().release().to_string_lossy()).unwrap_or_default()
}

/// That of a release such as `6.1.0-31-amd64`.
pub fn parse(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("4.18.0-553.el8"), Some((4, 18)));
        assert_eq!(parse("7.0-rc1"), Some((7, 0)));
        assert!(parse("10.2.1") > parse("6.18.3"));
        for none in ["", "linux", "6", "99999999999.1"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn this_kernel_has_a_version() {
        assert!(running() > (2, 6));
    }
}
