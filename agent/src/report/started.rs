//! Who ran a `go` statement: the calls that led there, as sampled stacks tell, and the `go` statements that made those who ran it.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::golang::Frame;
use crate::golang::names::{is_of_module, is_standard};
use crate::session::Session;
use crate::symbolize::Symbols;
use crate::words::{Place, short};

/// Ways told of one `go` statement.
pub const MAX_WAYS: usize = 5;

/// Steps up the line of those who made one another.
const MAX_ANCESTORS: usize = 6;

/// Goroutines whose line is followed.
const MAX_FOLLOWED: usize = 1_000;

/// Frames of a way that are named in text.
const MAX_NAMED: usize = 3;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartedBy {
    /// Stacks that were taken when it ran; 0 where it was not watched by probes, or has not run since.
    pub sampled: u64,
    /// The ways there, the most frequent first, at most [`MAX_WAYS`].
    pub ways: Vec<Way>,
    /// Who made those that ran it, who made these, and so on, as far as they still live; of several the most frequent.
    pub ancestors: Vec<Ancestor>,
}

/// Calls that lead to a `go` statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Way {
    /// Part of the goroutines made while it was watched that came this way, an estimate.
    pub share: f64,
    /// Innermost first: the function with the `go` statement, its caller, and so on, 32 calls at most.
    pub stack: Vec<Frame>,
}

/// Goroutines that made others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ancestor {
    /// Part of those looked at of which this holds.
    pub share: f64,
    /// The `go` statement that made them; none for the main goroutine and the runtime's own.
    pub created_by: Option<Place>,
}

/// Creation site and parent of each goroutine.
pub(super) type Parents = HashMap<u64, (u64, u64)>;

/// As the last look has them.
pub(super) fn parents(session: &Session) -> Parents {
    let all = session.latest().into_iter().flat_map(|taken| &taken.census.goroutines);
    all.map(|goroutine| (goroutine.goid, (goroutine.creation_pc, goroutine.parent_goid))).collect()
}

impl StartedBy {
    /// Of a `go` statement, and some of the goroutines that it made.
    pub(super) fn of(session: &Session, creation_pc: u64, goids: impl Iterator<Item = u64>, parents: &Parents) -> Self {
        let (sampled, ways) = ways(session, creation_pc);
        let goids: Vec<u64> = goids.take(MAX_FOLLOWED).collect();
        Self { sampled, ways, ancestors: ancestors(session.symbols(), &goids, parents) }
    }

    /// What is said of it, a line each.
    pub(crate) fn lines(&self, module: Option<&str>) -> Vec<String> {
        let way = |way: &Way| format!("{} {}", percent(way.share), named(&way.stack, module));
        let mut lines: Vec<String> = self.ways.iter().take(MAX_NAMED).map(way).collect();
        let made = |ancestor: &Ancestor| {
            let by = match &ancestor.created_by {
                Some(place) => format!("in goroutines of {}", place.short()),
                None => "in the main goroutine".to_owned(),
            };
            if ancestor.share < 0.995 { format!("{by} ({})", percent(ancestor.share)) } else { by }
        };
        let line: Vec<String> = self.ancestors.iter().map(made).collect();
        if !line.is_empty() {
            lines.push(line.join(", made "));
        }
        lines
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn ways(session: &Session, creation_pc: u64) -> (u64, Vec<Way>) {
    let Some(known) = session.creators().of(creation_pc) else { return (0, Vec::new()) };
    let mut by_stack: Vec<(Vec<Frame>, u64)> = Vec::new();
    for (path, count) in &known.paths {
        let path = session.creators().path(*path).iter();
        let frames = path.flat_map(|pc| session.symbols().return_address(*pc)).cloned();
        let stack: Vec<Frame> = frames.take_while(|frame| !is_root(frame)).collect();
        match by_stack.iter_mut().find(|(other, _)| *other == stack) {
            Some((_, sum)) => *sum = sum.saturating_add(*count),
            None => by_stack.push((stack, *count)),
        }
    }
    by_stack.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let way = |(stack, count): (Vec<Frame>, u64)| Way {
        share: (1e4 * count as f64 / known.all.max(1) as f64).round() / 1e4,
        stack,
    };
    (known.sampled, by_stack.into_iter().filter(|(stack, _)| !stack.is_empty()).take(MAX_WAYS).map(way).collect())
}

/// Where every goroutine begins, whatever it does.
fn is_root(frame: &Frame) -> bool {
    matches!(frame.function.as_str(), "runtime.goexit" | "runtime.main")
}

fn ancestors(symbols: &Symbols, goids: &[u64], parents: &Parents) -> Vec<Ancestor> {
    let mut line = Vec::new();
    let mut children: Vec<u64> = goids.to_vec();
    let all = children.len();
    while line.len() < MAX_ANCESTORS {
        let mut by_site: HashMap<u64, Vec<u64>> = HashMap::new();
        for parent in children.iter().filter_map(|child| Some(parents.get(child)?.1)) {
            if let Some((creation_pc, _)) = parents.get(&parent) {
                by_site.entry(*creation_pc).or_default().push(parent);
            }
        }
        let most = by_site.into_iter().max_by_key(|(creation_pc, of)| (of.len(), *creation_pc));
        let Some((creation_pc, of)) = most else { break };
        let created_by = Place::of_creation(symbols, creation_pc);
        let is_last = created_by.is_none();
        line.push(Ancestor { share: (1e4 * of.len() as f64 / all as f64).round() / 1e4, created_by });
        if is_last {
            break;
        }
        children = of;
    }
    line
}

/// The calls before the `go` statement: those in the program's own code if there are any, else those outside the standard library,
/// else whatever there is.
fn named(stack: &[Frame], module: Option<&str>) -> String {
    let Some((statement, callers)) = stack.split_first() else { return String::new() };
    let own: Vec<&Frame> = callers.iter().filter(|frame| is_of_module(&frame.function, module)).collect();
    let foreign: Vec<&Frame> = callers.iter().filter(|frame| !is_standard(&frame.function)).collect();
    let told = [own, foreign, callers.iter().collect()].into_iter().find(|told| !told.is_empty()).unwrap_or_default();
    let names: Vec<String> = told.iter().take(MAX_NAMED).map(|frame| Place::of(frame).short()).collect();
    match names.is_empty() {
        true => format!("in {}, with which a goroutine begins", short::function(&statement.function)),
        false if told.len() > MAX_NAMED => format!("through {}, …", names.join(", ")),
        false => format!("through {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, line: u32) -> Frame {
        Frame { function: function.to_owned(), file: "/src/a.go".to_owned(), line, inlined: false }
    }

    fn way(share: f64, functions: &[&str]) -> Way {
        let stack = functions.iter().zip(1..).map(|(function, line)| frame(function, line)).collect();
        Way { share, stack }
    }

    #[test]
    fn ways_are_named_by_the_programs_own_calls() {
        let ways = vec![
            way(
                0.874,
                &["a.go", "net/http.HandlerFunc.ServeHTTP", "example.com/shop/api.(*api).search", "net/http.serve"],
            ),
            way(0.1, &["a.go", "github.com/x/pool.(*P).run", "sync.(*Once).Do"]),
            way(0.026, &["example.com/shop/api.root"]),
        ];
        let place =
            |line| Some(Place { function: "net/http.(*Server).Serve".to_owned(), file: "/h.go".to_owned(), line });
        let ancestors = vec![Ancestor { share: 0.9, created_by: place(7) }, Ancestor { share: 0.9, created_by: None }];
        let started = StartedBy { sampled: 40, ways, ancestors };
        assert_eq!(
            started.lines(Some("example.com/shop")),
            [
                "87 % through api.(*api).search a.go:3",
                "10 % through pool.(*P).run a.go:2",
                "3 % in api.root, with which a goroutine begins",
                "in goroutines of http.(*Server).Serve h.go:7 (90 %), made in the main goroutine (90 %)",
            ]
        );
        assert!(StartedBy::default().lines(None).is_empty());
    }

    #[test]
    fn the_line_of_those_who_made_one_another_ends_where_nobody_lives_and_in_circles() {
        let symbols = Symbols::default();
        let parents: Parents =
            [(1, (0, 0)), (2, (70, 1)), (3, (80, 2)), (4, (80, 2)), (5, (80, 99)), (8, (90, 9)), (9, (90, 8))]
                .into_iter()
                .collect();
        let shares = |goids: &[u64]| ancestors(&symbols, goids, &parents).iter().map(|a| a.share).collect::<Vec<_>>();
        // Without names none has a place, so the line ends at the first.
        assert_eq!(shares(&[3, 4, 5]), [0.6667]);
        assert_eq!(shares(&[5]), [0.0; 0]);
        let named: Symbols = {
            let mut symbols = Symbols::default();
            symbols.extend(&[(69, vec![frame("main.a", 1)].into()), (89, vec![frame("main.b", 2)].into())]);
            symbols
        };
        assert_eq!(ancestors(&named, &[3, 4], &parents).len(), 2, "up to the main goroutine");
        assert_eq!(ancestors(&named, &[8], &parents).len(), MAX_ANCESTORS, "a circle is followed so far");
    }
}
