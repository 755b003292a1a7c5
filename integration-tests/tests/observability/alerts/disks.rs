//! A file system of a few megabytes.

use std::fs::{self, File};
use std::io::{Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::eventually;

use super::watched_at_length;

const MEGABYTE: usize = 1 << 20;
const SIZE: usize = 64;

/// Mounted until it is dropped.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `None` where nothing may be mounted.
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}m"), "ordermesh"])
            .arg(&folder)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self { folder })
    }

    /// Adds so many megabytes to what is there.
    fn fill(&self, megabytes: usize) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("file"))
            .unwrap();
        for _ in 0..megabytes {
            file.write_all(&vec![1; MEGABYTE]).unwrap();
        }
    }

    fn empty(&self) {
        fs::remove_file(self.folder.join("file")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}

#[test]
fn a_disk_that_fills_is_told_of_before_it_is_full() {
    let Some((system, alerts)) = watched_at_length(60) else {
        return;
    };
    let Some(disk) = Disk::mount(Path::new(&system.path("disk")).to_owned()) else {
        let _ = writeln!(
            stderr(),
            "disks are not tested: nothing can be mounted here"
        );
        return;
    };
    let mountpoint = disk.folder.display().to_string();
    let full = [("mountpoint", mountpoint.as_str())];
    disk.fill(40);
    eventually("prometheus sees the disk", || {
        let seen = format!("node_filesystem_avail_bytes{{mountpoint=\"{mountpoint}\"}}");
        let samples = alerts.prometheus().query(&seen).unwrap();
        (!samples.is_empty()).then_some(())
    });
    disk.fill(10);
    alerts.arrives("DiskFilling", &full);
    disk.fill(12);
    let notice = alerts.arrives("DiskFull", &full);
    assert_eq!(notice.receiver, "on-call");
    disk.empty();
    alerts.clears("DiskFull", &full);
    alerts.clears("DiskFilling", &full);
}
