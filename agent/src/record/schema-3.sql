-- Version 3: goroutines that wait for one another, as looks at their stacks have told.

-- One incident, from the first look that told of it to the last. It is the same as long as one of its roots is.
CREATE TABLE incident (
  id INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES process,
  from_mono_ns INTEGER NOT NULL,
  from_unix_ns INTEGER NOT NULL,
  seen_mono_ns INTEGER NOT NULL,   -- the last look that told of it
  seen_unix_ns INTEGER NOT NULL,
  ended_mono_ns INTEGER,           -- the look after that; NULL while it lasts, or where that was the last of all
  ended_unix_ns INTEGER,
  headline TEXT NOT NULL,          -- what is wrong, when they were the most
  goroutines INTEGER NOT NULL,     -- the most at a look
  cycle INTEGER NOT NULL,          -- 1: some of them wait for one another in a circle
  roots TEXT NOT NULL,             -- a JSON array: ids of those that the others wait for, at the last look; empty if that is not known
  chain TEXT NOT NULL              -- a JSON array: which groups they are in, those of the roots first, when they were the most
);
CREATE INDEX incident_of_process ON incident (process, id);
