//! Which processes of a recording are meant.

use super::read::RecordedProcess;
use crate::discover::describe::is_executable;

/// Processes of one executable or pod that are taken at most, the newest of them: a program that crashes at once leaves
/// any number.
pub const MAX_SELECTED: usize = 200;

/// A choice of processes; what is none does not choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The last process that had this pid.
    pub pid: Option<u32>,
    /// Every process of this executable: its path, or the end of it.
    pub exe: Option<String>,
    /// Every process of this pod: its name, `namespace/name`, or its uid.
    pub pod: Option<String>,
    /// Only what was looked at since then, wall-clock nanoseconds.
    pub since: Option<u64>,
    /// Only what was looked at until then.
    pub until: Option<u64>,
}

impl Selection {
    /// Whether it names processes.
    pub fn names_any(&self) -> bool {
        self.pid.is_some() || self.exe.is_some() || self.pod.is_some()
    }

    /// The entries it means, oldest first.
    pub fn of<'e>(&self, entries: &'e [RecordedProcess]) -> Vec<&'e RecordedProcess> {
        let mut meant: Vec<&RecordedProcess> = entries.iter().filter(|entry| self.is_met_by(entry)).collect();
        let most = if self.pid.is_some() { 1 } else { MAX_SELECTED };
        meant.drain(..meant.len().saturating_sub(most));
        meant
    }

    fn is_met_by(&self, entry: &RecordedProcess) -> bool {
        let process = &entry.process;
        let exe = |wanted: &String| is_executable(&process.exe, wanted);
        let pod = |wanted: &String| {
            let full =
                process.pod_namespace.as_ref().zip(process.pod_name.as_ref()).map(|(ns, name)| format!("{ns}/{name}"));
            [&process.pod_name, &process.pod_uid, &full].into_iter().flatten().any(|name| name == wanted)
        };
        let in_time = entry.looks.is_some_and(|(first, last)| {
            self.since.is_none_or(|since| last.unix_ns >= since)
                && self.until.is_none_or(|until| first.unix_ns <= until)
        });
        in_time
            && self.pid.is_none_or(|pid| process.pid == pid)
            && self.exe.as_ref().is_none_or(exe)
            && self.pod.as_ref().is_none_or(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, process};
    use super::super::{ProcessIdentity, RecordedProcess};
    use super::*;

    fn entry(id: i64, process: ProcessIdentity, from: u64, to: u64) -> RecordedProcess {
        RecordedProcess {
            id,
            process,
            host: "node".to_owned(),
            boot: 1,
            looks: Some((at(from), at(to))),
            samples: 2,
            live: 1,
            verdict: None,
            exit: None,
        }
    }

    fn ids(selection: &Selection, entries: &[RecordedProcess]) -> Vec<i64> {
        selection.of(entries).iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn processes_are_named_by_pid_executable_pod_and_time() {
        let pod = ProcessIdentity {
            pod_name: Some("shop-1".to_owned()),
            pod_namespace: Some("web".to_owned()),
            ..process(9)
        };
        let gone = ProcessIdentity { exe: "/srv/shop (deleted)".to_owned(), ..process(8) };
        let other = ProcessIdentity { exe: "/srv/workshop".to_owned(), ..process(7) };
        let entries =
            [entry(1, process(7), 0, 10), entry(2, gone, 20, 30), entry(3, pod, 40, 50), entry(4, other, 60, 70)];
        let exe = |name: &str| Selection { exe: Some(name.to_owned()), ..Selection::default() };
        let pod = |name: &str| Selection { pod: Some(name.to_owned()), ..Selection::default() };
        assert_eq!(ids(&exe("shop"), &entries), [1, 2, 3]);
        assert_eq!(ids(&exe("/srv/shop"), &entries), [1, 2, 3]);
        assert_eq!(ids(&exe("hop"), &entries), Vec::<i64>::new());
        assert_eq!(ids(&pod("shop-1"), &entries), [3]);
        assert_eq!(ids(&pod("web/shop-1"), &entries), [3]);
        assert_eq!(ids(&Selection { pid: Some(7), ..Selection::default() }, &entries), [4], "the last that had it");
        let until = Some(at(15).unix_ns);
        assert_eq!(ids(&Selection { pid: Some(7), until, ..Selection::default() }, &entries), [1]);
        assert_eq!(ids(&Selection { since: Some(at(30).unix_ns), ..Selection::default() }, &entries), [2, 3, 4]);
        assert!(!Selection { until, ..Selection::default() }.names_any());
    }
}
