//! Alerts of disks, on a file system of a few megabytes.

use std::fs::{self, File};
use std::io::{Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::eventually;

use super::monitored_long;

const MEGABYTE: usize = 1 << 20;
const SIZE: usize = 64;

/// A mounted file system. It is unmounted when the value is dropped.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts the file system; `None` where this user may not mount.
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

    /// Adds this many megabytes.
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
fn a_filling_disk_raises_an_alert_before_it_is_full() {
    let Some((system, alerts)) = monitored_long(60) else {
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
        let query = format!("node_filesystem_avail_bytes{{mountpoint=\"{mountpoint}\"}}");
        let samples = alerts.prometheus().query(&query).unwrap();
        (!samples.is_empty()).then_some(())
    });
    disk.fill(10);
    alerts.wait_until_firing("DiskFilling", &full);
    disk.fill(12);
    let notification = alerts.wait_until_firing("DiskFull", &full);
    assert_eq!(notification.receiver, "on-call");
    disk.empty();
    alerts.wait_until_resolved("DiskFull", &full);
    alerts.wait_until_resolved("DiskFilling", &full);
}
