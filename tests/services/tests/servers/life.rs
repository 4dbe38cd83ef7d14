//! However the process that started a server ends, the server goes with it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tidelock_services::{Part, install, or_skip};

/// `up` with only MinIO, and what it said of itself.
struct Up {
    process: Child,
    _output: BufReader<ChildStdout>,
    server: u32,
    folder: PathBuf,
}

fn up() -> Up {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidelock-services"))
        .args(["up", "--only", "s3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    // "# S3     http://…  (process 4711, folder /tmp/…)"
    let mut line = String::new();
    while !line.starts_with("# S3") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended before it was up");
    }
    let (pid, folder) = line.split_once("(process ").unwrap().1.split_once(", folder ").unwrap();
    let (server, folder) = (pid.parse().unwrap(), folder.trim().trim_end_matches(')').into());
    Up { process, _output: output, server, folder }
}

fn signal(pid: u32, name: &str) -> bool {
    Command::new("kill").args([name, &pid.to_string()]).output().unwrap().status.success()
}

fn goes(mut gone: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if gone() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    false
}

fn everything_goes(pid: u32, folder: &Path) {
    assert!(goes(|| !signal(pid, "-0")), "server {pid} is still alive");
    assert!(goes(|| !folder.exists()), "{} is still there", folder.display());
}

#[test]
fn sigkill_takes_the_server_and_its_folder_along() {
    if or_skip(install(Part::Minio)).is_none() {
        return;
    }
    let mut up = up();
    assert!(signal(up.server, "-0") && up.folder.exists());
    assert!(signal(up.process.id(), "-KILL"));
    up.process.wait().unwrap();
    everything_goes(up.server, &up.folder);
}

#[test]
fn a_signal_to_stop_ends_it_cleanly() {
    if or_skip(install(Part::Minio)).is_none() {
        return;
    }
    for name in ["-INT", "-TERM"] {
        let mut up = up();
        assert!(signal(up.process.id(), name));
        assert!(up.process.wait().unwrap().success(), "after {name}");
        // Everything is gone before the process is.
        assert!(!signal(up.server, "-0"));
        assert!(!up.folder.exists());
    }
}
