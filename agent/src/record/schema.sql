-- A parkwarden recording, version 1 (PRAGMA user_version). Later versions begin as this one and are brought up by the files
-- beside it: schema-2.sql, schema-3.sql.
--
-- Times come in pairs: *_mono_ns is CLOCK_MONOTONIC, which orders everything of one boot and never steps; *_unix_ns is the
-- wall clock at that moment, for people. Nanoseconds. NULL means that it is not known.

-- A boot of a host.
CREATE TABLE boot (
  id INTEGER PRIMARY KEY,
  boot_id TEXT NOT NULL UNIQUE,
  host TEXT NOT NULL   -- as it was called at first: a container can be called something else each time
);

-- A run of parkwarden.
CREATE TABLE run (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  boot INTEGER NOT NULL REFERENCES boot,
  version TEXT NOT NULL,
  started_mono_ns INTEGER NOT NULL,
  started_unix_ns INTEGER NOT NULL,
  interval_ns INTEGER NOT NULL,
  threshold_ns INTEGER NOT NULL
);

-- A recorded process.
CREATE TABLE process (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  boot INTEGER NOT NULL REFERENCES boot,
  pid INTEGER NOT NULL,
  start_ticks INTEGER NOT NULL,
  exe TEXT NOT NULL,
  go_version TEXT NOT NULL,
  arch TEXT NOT NULL,
  started_mono_ns INTEGER,
  started_unix_ns INTEGER,
  container TEXT,
  pod_uid TEXT,
  pod_name TEXT,
  pod_namespace TEXT,
  unit TEXT,
  memory_limit_bytes INTEGER,
  exited_mono_ns INTEGER,
  exited_unix_ns INTEGER,
  exit_kind TEXT,      -- exited, signaled, oom_killed, perhaps_oom_killed, replaced, unknown; NULL while it runs
  exit_code INTEGER,   -- with exited
  exit_signal INTEGER, -- with signaled
  exit_evidence TEXT,
  UNIQUE (boot, pid, start_ticks, exe)
);

-- One run's watch of one process. Its samples follow each other at the run's interval unless a gap says otherwise.
CREATE TABLE watch (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL REFERENCES run,
  process INTEGER NOT NULL REFERENCES process,
  last_sample INTEGER,
  ended TEXT           -- stopped, process_ended; NULL while it runs, or when parkwarden was killed
);
CREATE INDEX watch_of_process ON watch (process);

-- One look at one process. Old ones are thinned: fewer samples, each as it was.
CREATE TABLE sample (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  watch INTEGER NOT NULL REFERENCES watch,
  mono_ns INTEGER NOT NULL,
  unix_ns INTEGER NOT NULL,
  live INTEGER NOT NULL,        -- goroutines, without the runtime's own
  system INTEGER NOT NULL,      -- the runtime's own
  parked INTEGER NOT NULL,      -- goroutines parked beyond the threshold
  events_lost INTEGER NOT NULL, -- since the watch began
  unlisted INTEGER NOT NULL,    -- sites and groups left out because there were too many
  rss_bytes INTEGER,
  cpu_ns INTEGER                -- since the process started
);
CREATE INDEX sample_of_watch ON sample (watch, id);

-- A go statement of a process (function, file and line; NULL for goroutines that none made) and the function it starts.
CREATE TABLE site (
  id INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES process,
  function TEXT,
  file TEXT,
  line INTEGER,
  start_function TEXT NOT NULL
);
CREATE UNIQUE INDEX site_key ON site (process, start_function, ifnull(function, ''), ifnull(file, ''), ifnull(line, 0));

-- A stack, innermost frame first: a JSON array of {function, file, line, inlined}.
CREATE TABLE stack (
  id INTEGER PRIMARY KEY,
  frames TEXT NOT NULL UNIQUE
);

-- Goroutines of one process that one go statement made and that wait in the same stack for the same reason.
CREATE TABLE goroutine_group (
  id INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES process,
  site INTEGER NOT NULL REFERENCES site,
  stack INTEGER NOT NULL REFERENCES stack,
  wait_reason TEXT NOT NULL,
  UNIQUE (process, site, stack, wait_reason)
);

-- Goroutines by go statement. A site without a row had none alive.
CREATE TABLE site_sample (
  sample INTEGER NOT NULL,
  site INTEGER NOT NULL,
  live INTEGER NOT NULL,
  created INTEGER NOT NULL, -- since the watch began
  exited INTEGER NOT NULL,
  PRIMARY KEY (sample, site)
) WITHOUT ROWID;

-- Waiting goroutines by group. A group without a row had none.
CREATE TABLE group_sample (
  sample INTEGER NOT NULL,
  goroutine_group INTEGER NOT NULL,
  waiting INTEGER NOT NULL,
  parked INTEGER NOT NULL,  -- beyond the threshold
  verdict TEXT,             -- idle, stuck, likely, proven; NULL while nobody is parked beyond the threshold
  PRIMARY KEY (sample, goroutine_group)
) WITHOUT ROWID;

-- Changes of verdict. evidence is a JSON array of sentences at the change, latest_evidence that of the last look.
CREATE TABLE verdict (
  id INTEGER PRIMARY KEY,
  goroutine_group INTEGER NOT NULL REFERENCES goroutine_group,
  mono_ns INTEGER NOT NULL,
  unix_ns INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  evidence TEXT NOT NULL,
  latest_evidence TEXT NOT NULL,
  cause TEXT,
  remedy TEXT
);
CREATE INDEX verdict_of_group ON verdict (goroutine_group, id);

-- Some of the leaked goroutines, the longest parked of each group.
CREATE TABLE goroutine (
  goroutine_group INTEGER NOT NULL REFERENCES goroutine_group,
  goid INTEGER NOT NULL,
  created_mono_ns INTEGER,         -- NULL when it was there before the watch
  parked_mono_ns INTEGER NOT NULL,
  parked_exact INTEGER NOT NULL,   -- 0: parked at least since then
  seen_mono_ns INTEGER NOT NULL,   -- when it was last seen there
  PRIMARY KEY (goroutine_group, goid)
) WITHOUT ROWID;

-- Times of which less is known. cause: not_running, recording_stopped, stalled (no samples in between); events_lost,
-- budget_reached (samples are there, what events tell is not).
CREATE TABLE gap (
  id INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES process,
  from_mono_ns INTEGER NOT NULL,
  from_unix_ns INTEGER NOT NULL,
  to_mono_ns INTEGER NOT NULL,
  to_unix_ns INTEGER NOT NULL,
  cause TEXT NOT NULL,
  detail TEXT NOT NULL
);
CREATE UNIQUE INDEX gap_of_process ON gap (process, from_mono_ns, cause);

-- How far thinning has come: the last sample it has judged, for each age.
CREATE TABLE thinned (
  age_ns INTEGER PRIMARY KEY,
  sample INTEGER NOT NULL
);

-- For queries by hand.
CREATE VIEW group_history AS
SELECT process.id AS process, process.pid, process.exe, process.pod_name,
       datetime(sample.unix_ns / 1000000000, 'unixepoch') AS at,
       ifnull(site.function || ' ' || site.file || ':' || site.line, 'the runtime') AS created_by,
       goroutine_group.wait_reason, group_sample.waiting, group_sample.parked, group_sample.verdict,
       goroutine_group.id AS goroutine_group, goroutine_group.stack, sample.id AS sample
FROM group_sample
JOIN sample ON sample.id = group_sample.sample
JOIN goroutine_group ON goroutine_group.id = group_sample.goroutine_group
JOIN process ON process.id = goroutine_group.process
JOIN site ON site.id = goroutine_group.site;
