//! A clock that a test sets: the time of day of one process, and the time that passes in it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Edge, Folder};

/// Stands between the process and the kernel. Two numbers of seconds are added: to the time of day,
/// and to the time since some moment, which deadlines are counted by.
const BETWEEN: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_AHEAD"), O_RDONLY);
    void *place = mmap(0, 16, PROT_READ, MAP_SHARED, file, 0);
    ahead = place == MAP_FAILED ? 0 : place;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (failed || !ahead) return failed;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += ahead[0];
    if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME)
        now->tv_sec += ahead[1];
    return 0;
}
"#;

pub struct Clock {
    file: fs::File,
    time_of_day: AtomicI64,
    passed: AtomicI64,
}

impl Clock {
    /// An edge whose clock goes right until it is set.
    pub fn start(folder: Folder, yaml: &str) -> (Edge, Self) {
        folder.write("proxy.yaml", yaml);
        let (source, between) = (folder.write("clock.c", BETWEEN), folder.path("clock.so"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&between).arg(source);
        assert!(compiler.status().expect("a C compiler").success());
        let ahead = folder.path("clock.ahead");
        fs::write(&ahead, [0; 16]).expect("a file");
        let file = fs::File::options().write(true).open(&ahead).expect("a file");
        let mut command = Edge::command(&folder);
        command.env("LD_PRELOAD", between).env("CLOCK_AHEAD", ahead);
        let clock = Self { file, time_of_day: AtomicI64::new(0), passed: AtomicI64::new(0) };
        (Edge::spawn(folder, command), clock)
    }

    /// Somebody sets the clock so many seconds ahead, or back; no time passes.
    pub fn set(&self, seconds: i64) {
        let all = self.time_of_day.fetch_add(seconds, Ordering::Relaxed) + seconds;
        self.file.write_all_at(&all.to_ne_bytes(), 0).expect("written");
    }

    /// So many seconds pass, by which no time of day is changed. What waits for a timer alone is not
    /// woken by it: each thread looks at the clock when it has something to do.
    pub fn pass_unseen(&self, seconds: i64) {
        let all = self.passed.fetch_add(seconds, Ordering::Relaxed) + seconds;
        self.file.write_all_at(&all.to_ne_bytes(), 8).expect("written");
    }

    /// So many seconds pass.
    pub fn pass(&self, seconds: i64) {
        self.set(seconds);
        self.pass_unseen(seconds);
    }
}
