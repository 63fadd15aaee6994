//! They wait for something that a library hands out, and whose wait is not work: for a while nobody got any.

use super::Standing;

/// Thresholds that have to pass without anybody getting it.
const THRESHOLDS: u64 = 3;

/// What is waited for within a function.
const RESOURCES: [(&str, &str); 10] = [
    ("database/sql.(*DB).conn", "a connection of the database pool (SetMaxOpenConns)"),
    ("github.com/jackc/puddle/v2.(*Pool[...]).Acquire", "a connection of the database pool"),
    ("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).waitTurn", "a connection of the Redis pool"),
    ("golang.org/x/sync/semaphore.(*Weighted).Acquire", "a weighted semaphore"),
    ("golang.org/x/sync/errgroup.(*Group).Go", "a place in an errgroup whose limit is reached (SetLimit)"),
    ("golang.org/x/sync/singleflight.(*Group).Do", "another call with the same key (singleflight)"),
    ("net/http.(*Transport).getConn", "a connection of the HTTP transport (MaxConnsPerHost)"),
    ("net/http.(*Server).Shutdown", "connections of the HTTP server that do not become idle"),
    ("io.(*pipe).write", "a reader of the pipe"),
    ("sync.(*Once).doSlow", "the first call of a sync.Once"),
];

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let (_, what) = RESOURCES.iter().find(|(function, _)| standing.passes(function))?;
    // Whoever is behind a lock inside has a sign of its own.
    standing.wait?;
    let unmoved = standing.unmoved(THRESHOLDS)?;
    Some(match unmoved.count {
        1 => format!("For {} s the goroutine that waits for {what} has not got it.", unmoved.seconds),
        count => format!("For {} s none of the {count} goroutines that wait for {what} has got it.", unmoved.seconds),
    })
}
