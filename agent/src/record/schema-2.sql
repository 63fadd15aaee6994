-- Version 2: what the Go runtime knew of itself at each look, for what it does between two looks as running totals. All are NULL
-- where the runtime could not be read, and in samples of before.

ALTER TABLE sample ADD COLUMN heap_live_bytes INTEGER;       -- marked by the last collection or allocated since
ALTER TABLE sample ADD COLUMN heap_goal_bytes INTEGER;       -- at which the next collection is to be done; NULL also if none is
ALTER TABLE sample ADD COLUMN go_memory_limit_bytes INTEGER; -- GOMEMLIMIT; NULL also without one
ALTER TABLE sample ADD COLUMN collections INTEGER;           -- since the process started
ALTER TABLE sample ADD COLUMN gc_cpu_ns INTEGER;             -- of the collector, as of the last collection
ALTER TABLE sample ADD COLUMN available_cpu_ns INTEGER;      -- of GOMAXPROCS CPUs, as of the last collection
ALTER TABLE sample ADD COLUMN gc_pause_ns INTEGER;           -- pauses of all collections
ALTER TABLE sample ADD COLUMN longest_pause_ns INTEGER;      -- of those since the look before; NULL also without any
ALTER TABLE sample ADD COLUMN runnable INTEGER;              -- goroutines that are ready and have no P
ALTER TABLE sample ADD COLUMN latency_p99_ns INTEGER;        -- one in a hundred waited longer for a P; NULL also without samples
ALTER TABLE sample ADD COLUMN threads INTEGER;
