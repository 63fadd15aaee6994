//! Every metric there is, in one table: what is exported and what is documented come from here.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows.
    Counter,
    /// Counts by length.
    Histogram,
    /// Quantiles.
    Summary,
}

impl Kind {
    /// As the exposition has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Whether it is of one process, with the labels of [`PROCESS`] first.
    pub of_process: bool,
    /// Its own labels.
    pub labels: &'static [&'static str],
    /// What it tells, as in the exposition.
    pub help: &'static str,
}

/// Labels that say which process: empty where there is nothing to say.
pub const PROCESS: [&str; 5] = ["namespace", "pod", "container", "exe", "pid"];

macro_rules! definitions {
    ($($id:ident: $kind:ident $scope:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Definition = Definition {
            name: concat!("parkwarden_", $name),
            kind: Kind::$kind,
            of_process: definitions!(@$scope),
            labels: &[$($label),*],
            help: $help,
        };)*
        /// All of them.
        pub const ALL: &[Definition] = &[$($id),*];
    };
    (@process) => { true };
    (@agent) => { false };
}

definitions! {
    INFO: Gauge process "process_info" ["go_version", "mode", "owner", "node_unit"]
        "1, with what does not change while a process is watched in one mode: its Go version, how it is watched, what made its pod, its systemd unit.";
    GOROUTINES: Gauge process "goroutines" [] "Goroutines alive, those of the runtime included.";
    PARKED: Gauge process "goroutines_parked" ["wait_reason"]
        "The program's own goroutines that wait, by the runtime's words for why.";
    PARKED_LONG: Gauge process "goroutines_parked_over_threshold" []
        "The program's own goroutines parked longer than the threshold.";
    OLDEST: Gauge process "goroutine_oldest_parked_timestamp_seconds" []
        "Since when the goroutine has been parked that has been for the longest time, in seconds since 1970, of those parked longer than the threshold; left out without any.";
    CREATED: Counter process "goroutines_created_total" []
        "Goroutines created since the watch began; in mode census those that lived from one look to the next are not seen.";
    EXITED: Counter process "goroutines_exited_total" []
        "Goroutines that ended since the watch began; in mode census none is seen.";
    PARK_DURATION: Histogram process "park_duration_seconds" ["wait_reason"]
        "How long parks lasted that have ended; mode filter does not tell of those shorter than min_park, modes births and census of none.";
    LEAKED: Gauge process "leaked_goroutines" ["created_by", "blocked_at", "cause", "verdict"]
        "Goroutines of groups that are likely or proven to leak: the largest groups, and the rest as created_by=\"other\".";
    LABELLED: Gauge process "labelled_goroutines" ["verdict", "key", "value"]
        "Goroutines of groups that are stuck, likely or proven to leak by the labels that the program has put on them (pprof.Do), of the keys in metrics.goroutine_labels: the most frequent values, and the rest as value=\"other\".";
    LEAKED_BYTES: Gauge process "leaked_bytes" ["created_by", "blocked_at", "kind"]
        "Memory of goroutines of groups that are likely or proven to leak: kind=\"stack\" the stacks of all that wait there, kind=\"heap\" what the proven ones alone keep, where a proof has counted it; the largest groups, and the rest as created_by=\"other\".";
    STUCK: Gauge process "stuck_goroutines" ["created_by", "blocked_at"]
        "Goroutines of groups that are stuck and do not grow: the largest groups, and the rest as created_by=\"other\".";
    OVERHEAD_SECONDS: Counter process "target_overhead_seconds_total" []
        "Time that probes have cost the process: their hits times what one costs on this host, an estimate.";
    OVERHEAD_RATIO: Gauge process "target_overhead_ratio" []
        "That as a share of the CPU time that the process used while it was watched.";
    OVER_BUDGET: Counter process "over_budget_seconds_total" [] "Time in which probes cost more than the budget allows, once what it allowed before is spent.";
    RUNNABLE: Gauge process "goroutines_runnable" [] "Goroutines that were ready to run and had no P at the last look.";
    LATENCY: Gauge process "scheduling_latency_p99_seconds" []
        "One in a hundred goroutines that were ready waited longer for a P, of those that the runtime sampled between the last two looks; left out where there were none.";
    GC_CPU: Counter process "gc_cpu_seconds_total" [] "CPU time of the collector, as of the last collection.";
    AVAILABLE_CPU: Counter process "available_cpu_seconds_total" []
        "CPU time that there was for the program, GOMAXPROCS times the time, as of the last collection.";
    GC_PAUSE: Gauge process "gc_longest_pause_seconds" [] "The longest pause of the collections between the last two looks; 0 without any.";
    HEAP_MARKED: Gauge process "heap_marked_bytes" [] "Bytes that the last collection found live.";
    LIMITER: Gauge process "gc_limited" []
        "1 if in one of the last ten collections the collector was kept from taking more than half of the CPU: the memory limit is too low.";
    THROTTLED: Counter process "throttled_seconds_total" []
        "Time that the quota of the process's CPU control group has kept its threads from running, summed over CPUs.";
    GROUP_USED: Gauge process "memory_group_used_bytes" [] "Bytes that the process's memory control group uses, where it has a limit.";
    GROUP_LIMIT: Gauge process "memory_group_limit_bytes" [] "The limit of that group, or of one around it.";
    UNUSUAL: Gauge process "runtime_unusual" ["rule"] "1 for what is unusual about the program's runtime; its report has it in words.";
    LOOKED: Gauge process "process_last_look_timestamp_seconds" []
        "When the process's goroutines were last read, in seconds since 1970.";
    ENDS: Counter agent "process_exits_total" ["namespace", "pod", "container", "exe", "how"]
        "Watched processes that ended, by how: exit, signal, oom, perhaps_oom (SIGKILL, and memory ran out somewhere), exec, unknown; 0 while they run.";
    EVENTS: Counter agent "events_total" ["kind"] "Events that reached the agent.";
    LOSSES: Counter agent "losses_total" ["cause"] "What was missed, by cause; censuses repair the picture.";
    HITS: Counter agent "probe_hits_total" ["function", "site_class"]
        "Hits of probes, by function of the Go runtime and by what a hit of that place makes the kernel do.";
    MOVES: Counter agent "mode_moves_total" [] "Moves of processes from one mode to another.";
    CENSUS: Histogram agent "census_duration_seconds" []
        "How long reading all goroutines of a process took; the process was not stopped.";
    PAUSE: Histogram agent "proof_pause_seconds" [] "How long processes stood still for a proof, on average between two looks.";
    PROOFS_REFUSED: Counter agent "proofs_refused_total" [] "Proofs given up, because the process would have stood still too long or could not be read.";
    CONTRADICTED: Counter agent "proofs_contradicted_total" []
        "Goroutines proven to be leaked that ran or ended all the same: parkwarden was wrong.";
    PROCESSES: Gauge agent "processes" ["state"] "Go processes of this node, by what becomes of them.";
    REFUSED: Gauge agent "processes_refused" ["reason"] "Go processes that cannot be watched, by reason.";
    UNSEEN: Gauge agent "processes_unseen" []
        "Processes that the agent may not look at: whether they are Go programs is not known.";
    RING_FILL: Gauge agent "ring_fill_ratio" [] "The most that the ring of events has held, as a share of its size.";
    RECORDING_BYTES: Gauge agent "recording_bytes" [] "Size of the recording.";
    RECORDING_UP: Gauge agent "recording_up" [] "1 if what is seen is being recorded, 0 if it should be and is not.";
    RECORDING_ERRORS: Counter agent "recording_errors_total" [] "Looks that should have been recorded and were not.";
    KUBERNETES_UP: Gauge agent "kubernetes_up" [] "1 while changes of this node's pods arrive, 0 while what is known of them ages.";
    KUBERNETES_ERRORS: Counter agent "kubernetes_errors_total" [] "Requests for this node's pods that failed.";
    KUBERNETES_EVENTS: Counter agent "kubernetes_events_total" ["outcome"] "Events on pods that leak, by what became of them.";
    HTTP_CONNECTIONS: Counter agent "http_connections_total" ["outcome"]
        "Connections to the agent, by what became of them: accepted, refused because there were too many, broken off.";
    HTTP_ANSWERS: Counter agent "http_answers_total" ["route", "code"] "Answers of the agent's HTTP server.";
    SERIES_DROPPED: Counter agent "series_dropped_total" []
        "Series left out of scrapes because there were more than limits.series, summed over scrapes.";
    BUILD: Gauge agent "build_info" ["version"] "1, with the version of parkwarden.";
}
