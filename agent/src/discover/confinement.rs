//! What confines a process beyond users and capabilities: AppArmor's profiles and SELinux's contexts, for the words of a
//! refusal. The kernel says only that something is not permitted, not who forbids it.
//!
//! Deliberately absent: what a profile allows, and so whether it is to blame. The sentence says "may".

use std::fs;

/// A sentence about the security modules that confine parkwarden or process `pid`; none where none does.
pub fn sentence(pid: Option<u32>) -> Option<String> {
    let own = of("self").map(|label| format!("parkwarden by {label}"));
    let other = pid.and_then(|pid| Some(format!("pid {pid} by {}", of(&pid.to_string())?)));
    let confined: Vec<String> = own.into_iter().chain(other).collect();
    (!confined.is_empty()).then(|| {
        format!(
            "that may be forbidden by a security module, whose log (dmesg, audit) tells: it confines {}",
            confined.join(" and ")
        )
    })
}

fn of(process: &str) -> Option<String> {
    // The first is AppArmor's own since Linux 5.8; the second is of the module that has the old name.
    let paths = ["attr/apparmor/current", "attr/current"].map(|file| format!("/proc/{process}/{file}"));
    let label = paths.iter().find_map(|path| fs::read_to_string(path).ok())?;
    described(label.trim_end_matches(['\0', '\n']))
}

/// The label in words: AppArmor's ends in a mode, `name (enforce)`, and SELinux's has `user:role:type:level`.
fn described(label: &str) -> Option<String> {
    if label.ends_with(')') && !label.starts_with("unconfined ") {
        return Some(format!("the AppArmor profile {label}"));
    }
    let kind = label.split(':').nth(2)?;
    (!kind.starts_with("unconfined")).then(|| format!("the SELinux context {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_told_by_its_module() {
        let told = described("parkwarden (enforce)");
        assert_eq!(told.as_deref(), Some("the AppArmor profile parkwarden (enforce)"));
        let told = described("/usr/sbin/shop//:web:&a:b (complain)");
        assert_eq!(told.as_deref(), Some("the AppArmor profile /usr/sbin/shop//:web:&a:b (complain)"));
        let told = described("system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(told.as_deref(), Some("the SELinux context system_u:system_r:container_t:s0:c1,c2"));
        for nothing in
            ["unconfined", "unconfined (unconfined)", "unconfined_u:unconfined_r:unconfined_t:s0", "kernel", ""]
        {
            assert_eq!(described(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_not_confined() {
        assert_eq!(of("0"), None);
    }
}
