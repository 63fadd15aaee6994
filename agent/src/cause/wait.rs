//! What a goroutine waits for: by the text of its wait reason, and by what its `g` leads to.

use std::borrow::Cow;

use crate::golang::Frame;
use crate::golang::proof_layout::ReachLayout;
use crate::memory::census::{Goroutine, Status};
use crate::memory::chain::Chain;
use crate::memory::{Memory, bytes_at, word_at};

/// What a goroutine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// To send on a channel.
    Send,
    /// To receive from a channel.
    Receive,
    /// For one of several channel operations.
    Select,
    /// To send on a nil channel, which never happens.
    NilSend,
    /// To receive from a nil channel, which never happens.
    NilReceive,
    /// In a `select` without cases.
    EmptySelect,
    /// For a `sync.Cond`.
    Cond,
    /// For a `sync.Mutex`.
    Mutex,
    /// To read-lock a `sync.RWMutex`.
    RLock,
    /// To lock a `sync.RWMutex`.
    Lock,
    /// For a `sync.WaitGroup`.
    WaitGroup,
    /// To be switched to, as one side of an `iter.Pull`.
    Coroutine,
}

/// What a goroutine does that does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// It waits, with the runtime's wait reason number.
    Waits(u8),
    /// It is in a system call, or in C: the runtime does not tell them apart.
    Syscall,
    /// It runs, or is ready to.
    Runs,
}

impl Doing {
    /// What a goroutine is doing.
    pub const fn of(goroutine: &Goroutine) -> Self {
        match goroutine.status {
            Status::Syscall => Self::Syscall,
            status if status.is_waiting() => Self::Waits(goroutine.wait_reason),
            _ => Self::Runs,
        }
    }

    /// In words, as Go's own tracebacks have them where they do.
    pub fn reason(self, reasons: &[String], stack: &[Frame]) -> String {
        match self {
            Self::Waits(number) => match reasons.get(usize::from(number)) {
                Some(text) if !text.is_empty() => text.clone(),
                _ => format!("unknown wait reason {number}"),
            },
            Self::Syscall if stack.iter().any(|frame| frame.function == CGOCALL) => C_CALL.to_owned(),
            Self::Syscall => SYSCALL.to_owned(),
            Self::Runs => RUNNING.to_owned(),
        }
    }
}

/// The reason given for goroutines in a system call.
pub const SYSCALL: &str = "syscall";
/// The reason given for those in C.
pub const C_CALL: &str = "C call";
/// The reason given for those that run all the time.
pub const RUNNING: &str = "running";
/// The runtime's wait reason of iterators of `iter.Pull` and of those who ask them for values. `coroswitch_m` changes nothing in a `g`
/// by which one that ran and waits again could be told from one that did not.
pub const COROUTINE: &str = "coroutine";

/// The function through which Go calls C (src/runtime/cgocall.go).
const CGOCALL: &str = "runtime.cgocall";

impl Wait {
    /// The wait behind a reason's text (`waitReasonStrings`), if it is one that can be a leak.
    pub fn of_reason(reason: &str) -> Option<Self> {
        Some(match reason {
            "chan send" => Self::Send,
            "chan receive" => Self::Receive,
            "select" => Self::Select,
            "chan send (nil chan)" => Self::NilSend,
            "chan receive (nil chan)" => Self::NilReceive,
            "select (no cases)" => Self::EmptySelect,
            "sync.Cond.Wait" => Self::Cond,
            "sync.Mutex.Lock" => Self::Mutex,
            "sync.RWMutex.RLock" => Self::RLock,
            "sync.RWMutex.Lock" => Self::Lock,
            "sync.WaitGroup.Wait" => Self::WaitGroup,
            COROUTINE => Self::Coroutine,
            _ => return None,
        })
    }

    /// The same where the reason alone does not tell: until Go 1.23 everything that waits for a semaphore can have the same.
    pub fn of(reason: &str, stack: &[Frame]) -> Option<Self> {
        let through = |function: &str| stack.iter().any(|frame| frame.function == function);
        Self::of_reason(reason).or(match reason {
            "semacquire" if through("sync.(*WaitGroup).Wait") => Some(Self::WaitGroup),
            _ => None,
        })
    }

    /// Whether nothing at all can wake it.
    pub const fn is_forever(self) -> bool {
        matches!(self, Self::NilSend | Self::NilReceive | Self::EmptySelect)
    }

    /// Whether it waits for channels.
    pub const fn is_channel(self) -> bool {
        matches!(self, Self::Send | Self::Receive | Self::Select)
    }
}

/// Addresses of what a goroutine waits for, as its `g` leads to them. `None` where it does not: for semaphores and
/// conditions before Go 1.26, and for coroutines.
pub fn primitives_of(memory: &dyn Memory, layout: &ReachLayout, wait: Wait, goroutine: &Goroutine) -> Option<Vec<u64>> {
    match wait {
        _ if wait.is_forever() || wait == Wait::Coroutine => None,
        Wait::Send | Wait::Receive | Wait::Select => {
            Some(channels_of(memory, layout, goroutine)?.into_iter().map(|(_, channel)| channel).collect())
        }
        _ if layout.sudog.in_g => {
            Some(in_g(memory, layout, goroutine)?.into_iter().map(|(_, element)| element).collect())
        }
        _ => None,
    }
}

/// The sudogs in a goroutine's `g.waiting` with their channels. `None` when the list is damaged.
pub fn channels_of(memory: &dyn Memory, layout: &ReachLayout, goroutine: &Goroutine) -> Option<Vec<(u64, u64)>> {
    let head = goroutine.address.checked_add(u64::from(layout.g.waiting))?;
    let mut next = memory.read_u64(head).ok()?;
    let mut found = Vec::new();
    let mut chain = Chain::default();
    while next != 0 {
        let sudog = sudog(memory, layout, next)?;
        let whole = chain.goes_on(next) && found.len() <= 1 << 16;
        if !whole || word_at(&sudog, layout.sudog.g as usize)? != goroutine.address {
            return None;
        }
        found.push((next, word_at(&sudog, layout.sudog.c as usize)?));
        next = word_at(&sudog, layout.sudog.waitlink as usize)?;
    }
    Some(found)
}

/// The bytes of the sudog at an address.
pub(crate) fn sudog<'m>(memory: &'m dyn Memory, layout: &ReachLayout, address: u64) -> Option<Cow<'m, [u8]>> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    bytes_at(memory, address, layout.sudog.size as usize)
}

/// The one sudog in `g.waiting` of a goroutine that waits for something other than channels, and what that is.
pub(crate) fn in_g(memory: &dyn Memory, layout: &ReachLayout, goroutine: &Goroutine) -> Option<Vec<(u64, u64)>> {
    let address = memory.read_u64(goroutine.address.checked_add(u64::from(layout.g.waiting))?).ok()?;
    let sudog = sudog(memory, layout, address)?;
    let own = word_at(&sudog, layout.sudog.g as usize)? == goroutine.address;
    let element = word_at(&sudog, layout.sudog.elem as usize)?;
    (own && element != 0).then(|| vec![(address, element)])
}
