//! PostgreSQL's words: its programs, its data on the volume, and the rows in it.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::command::{Command, Runner, User};

/// Where the volume is in a pod.
pub(super) const VOLUME: &str = "/var/lib/postgresql";
/// A directory in it, because the top of a volume can hold a filesystem's own things.
const DATA: &str = "/var/lib/postgresql/data";
/// Where its socket is in a pod, which has this directory for itself.
const SOCKETS: &str = "/tmp";
const LOG: &str = "/tmp/postgresql.log";
/// Where Debian keeps the programs, by version.
const BY_VERSION: &str = "/usr/lib/postgresql";

/// A PostgreSQL that is installed here.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    programs: PathBuf,
    version: String,
    user: User,
}

/// What a table holds, in a few words to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) count: u64,
    pub(super) checksum: String,
}

impl Postgres {
    /// The one whose programs are in `given`; else the newest of Debian's, or the one in PATH.
    pub(super) fn find(tools: &dyn Runner, given: Option<&Path>) -> Result<Self> {
        let programs = match given {
            Some(given) => has_programs(given).then(|| given.to_owned()),
            None => newest().or_else(in_path),
        };
        let programs = programs.with_context(|| {
            let places = given.map_or_else(
                || format!("{BY_VERSION}/*/bin and PATH"),
                |given| given.display().to_string(),
            );
            format!(
                "PostgreSQL is missing, no initdb in {places}: install it (Debian: `apt-get install postgresql`), \
                 or say where it is by --postgres"
            )
        })?;
        let told = tools.run(&Command::query(programs.join("postgres")).arg("--version"))?;
        let version = told.split_whitespace().nth(2).unwrap_or("of some version");
        Ok(Self {
            version: version.to_owned(),
            user: somebody(tools)?,
            programs,
        })
    }

    /// Gives the volume to the user that PostgreSQL runs as: it refuses to be root.
    pub(super) fn own(&self) -> Command {
        let User { uid, gid } = self.user;
        Command::new("chown").args([&format!("{uid}:{gid}"), VOLUME])
    }

    /// Initialises the data.
    pub(super) fn init(&self) -> Command {
        self.program("initdb").args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
        ])
    }

    /// Starts the server, which only those in its pod can reach, and waits until it answers.
    pub(super) fn start(&self) -> Command {
        let options = format!("-k {SOCKETS} -c listen_addresses=''");
        self.program("pg_ctl")
            .args(["start", "--wait", "--log", LOG, "--options", &options])
    }

    /// What the server wrote last to its log.
    pub(super) fn last_words() -> Command {
        Command::query("tail").args(["-n", "5", LOG])
    }

    /// Stops the server and waits until it has written everything.
    pub(super) fn stop(&self) -> Command {
        self.program("pg_ctl")
            .args(["stop", "--wait", "--mode=fast"])
    }

    /// Makes the table and writes this many rows.
    pub(super) fn write(&self, rows: u32) -> Command {
        self.sql(&format!(
            "create table cargo (id int primary key, note text not null); \
             insert into cargo select id, md5(id::text) from generate_series(1, {rows}) id"
        ))
    }

    /// Deletes all rows.
    pub(super) fn delete(&self) -> Command {
        self.sql("delete from cargo")
    }

    /// Reads all rows; [`Rows::read`] understands the answer.
    pub(super) fn rows(&self) -> Command {
        self.sql(
            "select count(*), left(coalesce(md5(string_agg(id || note, ',' order by id)), 'none'), 8) from cargo",
        )
    }

    fn sql(&self, statements: &str) -> Command {
        Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set=ON_ERROR_STOP=1", "--host", SOCKETS])
            .args(["--username=postgres", "--dbname=postgres"])
            .args(["--command", statements])
            .user(self.user)
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
            .args(["--pgdata", DATA])
            .user(self.user)
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.version)
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows, checksum {}",
            thousands(self.count),
            self.checksum
        )
    }
}

impl Rows {
    /// Reads what [`Postgres::rows`] printed.
    pub(super) fn read(printed: &str) -> Result<Self> {
        let (count, checksum) = printed
            .trim()
            .split_once('|')
            .with_context(|| format!("psql printed {printed:?}, not a count and a checksum"))?;
        Ok(Self {
            count: count.parse().context("psql printed no count")?,
            checksum: checksum.to_owned(),
        })
    }
}

/// A count as people write it: `10,000`.
fn thousands(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        _ => format!("{},{:03}", thousands(count / 1000), count % 1000),
    }
}

fn has_programs(directory: &Path) -> bool {
    directory.join("initdb").exists()
}

/// Debian's newest: versions are numbers, and 9.6 is older than 15.
fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(BY_VERSION).ok()?.flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<f64>().ok();
    versions
        .map(|entry| entry.path())
        .filter(|path| has_programs(&path.join("bin")))
        .max_by(|one, other| {
            version(one)
                .partial_cmp(&version(other))
                .unwrap_or(std::cmp::Ordering::Equal)
        })
        .map(|path| path.join("bin"))
}

fn in_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|directory| has_programs(directory))
}

/// Whom PostgreSQL runs as: its own user, else nobody.
fn somebody(tools: &dyn Runner) -> Result<User> {
    let id = |which: &str, name: &str| -> Result<u32> {
        let printed = tools.run(&Command::query("id").args([which, name]))?;
        Ok(printed.trim().parse()?)
    };
    let user = |name: &str| -> Result<User> {
        Ok(User {
            uid: id("-u", name)?,
            gid: id("-g", name)?,
        })
    };
    let user = user("postgres").or_else(|_| user("nobody")).context(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
    )?;
    ensure!(
        user.uid != 0,
        "PostgreSQL does not run as root: the user postgres must not have its id"
    );
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_and_a_checksum_are_read() {
        let rows = Rows::read("10000|3f2a\n").expect("it is what psql prints");

        assert_eq!((rows.count, &*rows.checksum), (10000, "3f2a"));
        assert_eq!(rows.to_string(), "10,000 rows, checksum 3f2a");
        Rows::read("").expect_err("nothing was printed");
    }
}
