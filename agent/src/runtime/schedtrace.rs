//! The scheduler in the words of `GODEBUG=schedtrace` (`schedtrace` in src/runtime/proc.go of the program's version).

use std::fmt::{Display, Write as _};

use super::sched::{Listed, Machine, Processor, Scheduler};

/// From this minor version on the line of queues is spaced, and has the ticks behind it.
const WITH_TICKS: u32 = 25;

/// From this one on there are `nil`, `true` and `false` in the detail, which were numbers.
const WITH_WORDS: u32 = 20;

/// The one line that `schedtrace` prints, for a program of Go 1.`minor`.
pub fn line(sched: &Scheduler, minor: u32) -> String {
    let queues = joined(sched.processors.iter().map(|p| u64::from(p.run_queue)));
    let head = head(sched);
    if minor < WITH_TICKS {
        return format!("{head} [{queues}]\n");
    }
    let ticks = joined(sched.processors.iter().map(|p| p.sched_tick));
    format!("{head} [ {queues} ] schedticks=[ {ticks} ]\n")
}

/// All that `scheddetail` prints for a program of Go 1.`minor`. `reasons` are the runtime's texts of wait reasons.
pub fn detail(sched: &Scheduler, goroutines: &[Listed], reasons: &[String], minor: u32) -> String {
    let nil = if minor < WITH_WORDS { "-1" } else { "nil" };
    let flag = |on: bool| if minor < WITH_WORDS { u8::from(on).to_string() } else { on.to_string() };
    let mut text = head(sched);
    let _ = writeln!(
        text,
        " gcwaiting={} nmidlelocked={} stopwait={} sysmonwait={}",
        flag(sched.stopping),
        sched.idle_locked_threads,
        sched.stop_wait,
        flag(sched.monitor_sleeps)
    );
    for p in &sched.processors {
        processor(&mut text, p, nil);
    }
    for m in &sched.machines {
        machine(&mut text, m, nil);
    }
    for g in goroutines {
        let reason = reasons.get(usize::from(g.wait_reason)).map_or("unknown wait reason", String::as_str);
        let _ = writeln!(
            text,
            "  G{}: status={}({reason}) m={} lockedm={}",
            g.goid,
            g.status,
            or(nil, g.m),
            or(nil, g.locked_m)
        );
    }
    text
}

fn head(sched: &Scheduler) -> String {
    let need_spinning = sched.need_spinning.map(|need| format!(" needspinning={need}")).unwrap_or_default();
    format!(
        "SCHED {}ms: gomaxprocs={} idleprocs={} threads={} spinningthreads={}{need_spinning} idlethreads={} runqueue={}",
        sched.uptime_ms.unwrap_or(0),
        sched.gomaxprocs,
        sched.idle_processors,
        sched.threads,
        sched.spinning_threads,
        sched.idle_threads,
        sched.run_queue
    )
}

fn processor(text: &mut String, p: &Processor, nil: &str) {
    let _ = writeln!(
        text,
        "  P{}: status={} schedtick={} syscalltick={} m={} runqsize={} gfreecnt={} timerslen={}",
        p.id,
        p.status,
        p.sched_tick,
        p.syscall_tick,
        or(nil, p.m),
        p.run_queue,
        p.free_goroutines,
        p.timers
    );
}

fn machine(text: &mut String, m: &Machine, nil: &str) {
    let _ = writeln!(
        text,
        "  M{}: p={} curg={} mallocing={} throwing={} preemptoff={} locks={} dying={} spinning={} blocked={} lockedg={}",
        m.id,
        or(nil, m.p),
        or(nil, m.goroutine.map(|goroutine| goroutine.goid)),
        m.mallocing,
        m.throwing,
        // The program's own word.
        m.preempt_off.escape_debug(),
        m.locks,
        m.dying,
        m.spinning,
        m.blocked,
        or(nil, m.locked_goroutine)
    );
}

fn or(nil: &str, number: Option<impl Display>) -> String {
    number.map_or_else(|| nil.to_owned(), |number| number.to_string())
}

fn joined(numbers: impl Iterator<Item = u64>) -> String {
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_that_of_its_version() {
        let p = |run_queue, sched_tick| Processor { run_queue, sched_tick, ..Processor::default() };
        let sched = Scheduler {
            uptime_ms: Some(2013),
            gomaxprocs: 2,
            threads: 5,
            idle_threads: 3,
            run_queue: 7,
            need_spinning: Some(0),
            processors: vec![p(0, 11), p(4, 12)],
            ..Scheduler::default()
        };
        let head = "SCHED 2013ms: gomaxprocs=2 idleprocs=0 threads=5 spinningthreads=0 needspinning=0 idlethreads=3 \
                    runqueue=7";
        assert_eq!(line(&sched, 24), format!("{head} [0 4]\n"));
        assert_eq!(line(&sched, 25), format!("{head} [ 0 4 ] schedticks=[ 11 12 ]\n"));
    }
}
