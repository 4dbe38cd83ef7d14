//! The one world that all processes of a run live in, and the way into it.
//!
//! Processes touch the world through calls only, and every call passes
//! [`World::gate`]: a stopped process waits there until it goes on, a dead one
//! for ever. That is what makes a `SIGKILL` of code that runs in this very
//! thread: whatever a dead process still computes, it reaches nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::group::Group;
use crate::log::Log;
use crate::objects::Objects;
use crate::plan::{Plan, Weather};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::watcher::{Violation, Watcher};

/// One process, from its start to its end. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pid(pub(crate) u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// What the world knows of a process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) dead: bool,
    pub(crate) stopped: bool,
    pub(crate) task: Option<AbortHandle>,
}

/// Everything, behind one lock that is never held across an await.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) objects: Objects,
    pub(crate) log: Log,
    pub(crate) group: Group,
    pub(crate) watcher: Watcher,
    pub(crate) stats: Stats,
    pub(crate) trace: Trace,
    pub(crate) processes: BTreeMap<Pid, Process>,
    /// How many calls the store was asked for, of all processes.
    pub(crate) calls: u64,
    /// Whoever ends is not started again.
    pub(crate) ending: bool,
    started: Instant,
}

impl State {
    pub(crate) fn step(&mut self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        let at = self.started.elapsed().as_millis() as u64;
        self.trace.step(at, who, what);
    }

    pub(crate) fn is_dead(&self, pid: Pid) -> bool {
        self.processes.get(&pid).is_none_or(|process| process.dead)
    }

    /// Takes note of what must never happen; the first one is kept.
    pub(crate) fn violated(&mut self, violation: Violation) {
        self.step("!", format_args!("{violation}"));
        self.watcher.violated(violation);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    /// Not a `watch` channel, which wakes its waiters in an order drawn by lot.
    changed: Arc<Notify>,
}

impl World {
    pub(crate) fn new(plan: Plan, keep_trace: bool) -> Arc<Self> {
        let state = State {
            dice: Dice::new(plan.seed),
            weather: plan.weather.clone(),
            objects: Objects::default(),
            log: Log::new(plan.partitions),
            group: Group::new(plan.partitions),
            watcher: Watcher::new(&plan),
            stats: Stats::default(),
            trace: Trace::new(keep_trace),
            processes: BTreeMap::new(),
            calls: 0,
            ending: false,
            started: Instant::now(),
            plan,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Arc::default() })
    }

    /// The state, to be looked at.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test elsewhere leaves plain data behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_waiters();
        changed
    }

    /// Resolves at the next change after it was polled or enabled.
    pub(crate) fn next_change(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Waits while the process is stopped; for ever when it is dead.
    pub(crate) async fn gate(&self, pid: Pid) {
        loop {
            let mut change = pin!(self.next_change());
            change.as_mut().enable();
            let (dead, stopped) = {
                let state = self.lock();
                let process = state.processes.get(&pid);
                (process.is_none_or(|p| p.dead), process.is_some_and(|p| p.stopped))
            };
            if dead {
                return std::future::pending().await;
            }
            if !stopped {
                return;
            }
            change.await;
        }
    }

    /// Kills a process where it stands; the group finds out later.
    pub(crate) fn kill(self: &Arc<Self>, pid: Pid, why: &str) {
        let task = self.change(|state| {
            let process = state.processes.get_mut(&pid)?;
            if process.dead {
                return None;
            }
            process.dead = true;
            let task = process.task.take();
            state.stats.kills += 1;
            state.step(pid, format_args!("killed {why}"));
            Some(task)
        });
        let Some(task) = task else { return };
        if let Some(task) = task {
            task.abort();
        }
        self.expire_later(pid);
    }

    /// Stops a process as SIGSTOP does, for as long as `wait`.
    pub(crate) fn stop(self: &Arc<Self>, pid: Pid, wait: Duration) {
        let stopped = self.change(|state| {
            let process = state.processes.get_mut(&pid)?;
            if process.dead || process.stopped {
                return None;
            }
            process.stopped = true;
            state.stats.stops += 1;
            state.step(pid, format_args!("stopped for {} ms", wait.as_millis()));
            let after = state.plan.session_timeout;
            if wait > after {
                state.stats.zombies += 1;
            }
            Some(())
        });
        if stopped.is_some() {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                world.resume(pid);
            });
            self.expire_later(pid);
        }
    }

    /// The group gives up a member that says nothing for too long.
    fn expire_later(self: &Arc<Self>, pid: Pid) {
        let world = Arc::clone(self);
        let after = world.lock().plan.session_timeout;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            world.change(|state| {
                let Some(process) = state.processes.get(&pid) else { return };
                let dead = process.dead;
                if dead || process.stopped {
                    state.step(pid, format_args!("expires"));
                    state.group.expire(pid, dead, &mut state.dice);
                    state.stats.rebalances += 1;
                }
            });
        });
    }

    fn resume(&self, pid: Pid) {
        self.change(|state| {
            let Some(process) = state.processes.get_mut(&pid) else { return };
            if process.stopped && !process.dead {
                process.stopped = false;
                state.step(pid, format_args!("goes on"));
            }
        });
    }
}
