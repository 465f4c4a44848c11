//! The first process of the enclave's kernel.
//!
//! The kernel starts one program, as process 1, and nothing is there yet: no mounted file system but the ramdisks, and
//! nobody but process 1 to collect processes that end or to say that the machine should stop.

use std::{
    env,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{self, Command},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// Duties and rights of process 1.
#[derive(Clone, Copy, Debug)]
pub struct Init(());

/// What the kernel starts.
const PROGRAM: &str = "/init";

/// What is mounted: type, folder, flags. `/proc` is not: nothing needs it.
const MOUNTS: [(&str, &str, MsFlags); 2] = [
    // The kernel makes /dev/nsm and the random devices in it.
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC)),
    // Says which hardware generator the kernel draws from.
    ("sysfs", "/sys", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV).union(MsFlags::MS_RDONLY)),
];

impl Init {
    /// For process 1; none for any other, which has an init of its own.
    ///
    /// What the kernel does not know of its command line becomes arguments and environment of process 1, and some of that line
    /// is not measured: the hypervisor adds to it. Libraries heed variables of their own, so with any the program starts anew
    /// without all of them.
    pub fn claim() -> Option<Self> {
        if process::id() != 1 {
            return None;
        }
        let init = Self(());
        if env::args_os().len() > 1 || env::vars_os().next().is_some() {
            let error = Command::new(PROGRAM).env_clear().exec();
            let _ = writeln!(io::stderr(), "error: {PROGRAM}: {error}");
            init.end();
        }
        Some(init)
    }

    /// Mounts what the platform needs.
    pub fn mount(&self) -> Result<(), MountError> {
        for (kind, folder, flags) in MOUNTS {
            mount(Some(kind), folder, Some(kind), flags, None::<&str>).map_err(|errno| MountError {
                kind,
                folder,
                source: errno.into(),
            })?;
        }
        Ok(())
    }

    /// Collects every process that ends, from now on. Orphans of any process become children of process 1.
    ///
    /// Needs a runtime of tokio, which runs it.
    pub fn reap(&self) -> io::Result<()> {
        reap()
    }

    /// Ends the enclave: the hypervisor destroys it when its kernel restarts.
    pub fn end(self) -> ! {
        let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
        // A kernel without its process 1 panics, and `panic=1` on its command line restarts it.
        let _ = writeln!(io::stderr(), "error: restarting: {error}");
        process::exit(1)
    }
}

fn reap() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            // Several that end together send one signal.
            while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
        }
    });
    Ok(())
}

/// A file system cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("mounting {kind} at {folder}: {source}")]
pub struct MountError {
    kind: &'static str,
    folder: &'static str,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use std::{io::Read, path::Path, process::Stdio, time::Duration};

    use nix::sys::prctl::set_child_subreaper;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[test]
    fn only_process_1_is_init() {
        assert!(Init::claim().is_none());
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "who waits for it is what is tested")]
    async fn orphans_are_collected() {
        // As process 1 is without asking.
        set_child_subreaper(true).unwrap();
        reap().unwrap();
        let mut shell = Command::new("sh").args(["-c", "sleep 0.1 & echo $!"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut orphan = String::new();
        shell.stdout.take().unwrap().read_to_string(&mut orphan).unwrap();
        let processes = [shell.id().to_string(), orphan.trim().to_owned()].map(|id| Path::new("/proc").join(id));
        let gone = async {
            while processes.iter().any(|process| process.exists()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), gone)
            .await
            .expect("a process that ended and was not collected stays in /proc");
    }
}
