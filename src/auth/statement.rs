//! The one statement that finds a session, in each database's words; pure.
//!
//! Names come from the configuration, where they are checked; every value is bound.

use crate::config::{Constant, DatabaseKind, LuciaVariant, Rows, Unit};

/// How a library calls its table and columns, and how it writes moments.
pub struct Layout {
    table: &'static str,
    id: &'static str,
    user: &'static str,
    moment: &'static str,
    hash: Option<&'static str>,
    /// `None`: the database's own type for moments, and text or seconds in SQLite.
    unit: Option<Unit>,
    sqlite: Unit,
}

/// How many keys one statement asks for at most.
pub const KEYS_MAX: usize = 500;

pub struct Statement {
    kind: DatabaseKind,
    before: String,
    after: String,
    pub binds: Vec<Constant>,
    /// How SQLite's moments are read.
    pub unit: Unit,
    pub claims: Vec<String>,
    /// Its fourth column is a hash.
    pub hashed: bool,
    /// Table and column of the moments, where they may lack a time zone and none is configured.
    pub zone_of: Option<(String, String)>,
}

impl Layout {
    pub fn lucia(variant: LuciaVariant, rows: &Rows) -> Self {
        let sqlite = rows.database.kind == DatabaseKind::Sqlite;
        let plain = Self {
            table: "user_session",
            id: "id",
            user: "user_id",
            moment: "expires_at",
            hash: None,
            unit: None,
            sqlite: Unit::Seconds,
        };
        let hashed = Self { hash: Some("secret_hash"), unit: Some(Unit::Seconds), ..plain };
        match variant {
            LuciaVariant::V2 => Self {
                moment: "idle_expires",
                unit: Some(Unit::Milliseconds),
                sqlite: Unit::Milliseconds,
                hash: None,
                ..hashed
            },
            LuciaVariant::V3 if sqlite => {
                Self { table: "session", unit: None, hash: None, ..hashed }
            }
            LuciaVariant::V3 | LuciaVariant::Guide2024 => Self { unit: None, hash: None, ..hashed },
            LuciaVariant::Guide2025 => Self { table: "session", moment: "created_at", ..hashed },
            LuciaVariant::Guide2025Idle => {
                Self { table: "session", moment: "last_verified_at", ..hashed }
            }
            LuciaVariant::File2026 => {
                Self { table: "auth_session", moment: "token_last_verified_at", ..hashed }
            }
        }
    }

    pub fn authjs() -> Self {
        Self {
            table: "sessions",
            id: "sessionToken",
            user: "userId",
            moment: "expires",
            hash: None,
            unit: None,
            sqlite: Unit::Milliseconds,
        }
    }

    pub fn better_auth() -> Self {
        Self {
            table: "session",
            id: "token",
            user: "userId",
            moment: "expiresAt",
            hash: None,
            unit: None,
            sqlite: Unit::Iso,
        }
    }
}

impl Statement {
    /// Columns: id, user, moment, hash, then the claims.
    pub fn new(rows: &Rows, layout: &Layout) -> Self {
        let kind = rows.database.kind;
        let quoted = |name: &str| quote(kind, name);
        let column = |given: &Option<String>, own: &str| {
            format!("s.{}", quoted(given.as_deref().unwrap_or(own)))
        };
        let (id, user) = (column(&rows.id, layout.id), column(&rows.user, layout.user));
        let unit = rows.unit.or(layout.unit);
        let moment = moment(kind, &column(&rows.expires, layout.moment), unit, &rows.time_zone);
        let hash = match (&rows.hash, layout.hash) {
            (_, None) => "NULL".to_owned(),
            (given, Some(own)) => column(given, own),
        };
        let mut columns = vec![text(kind, &id), text(kind, &user), moment, hash];
        let owner = if rows.users.is_some() { "u" } else { "s" };
        columns.extend(
            rows.claims.iter().map(|claim| text(kind, &format!("{owner}.{}", quoted(claim)))),
        );
        let mut statement = format!("SELECT {} FROM ", columns.join(", "));
        statement.push_str(&quoted(rows.table.as_deref().unwrap_or(layout.table)));
        statement.push_str(" s");
        if let Some((table, key)) = &rows.users {
            let (table, key) = (quoted(table), quoted(key));
            statement.push_str(&format!(" JOIN {table} u ON u.{key} = {user}"));
        }
        statement.push_str(&format!(" WHERE {id} "));
        let mut after = String::new();
        for ((name, _), number) in rows.only.iter().zip(2..) {
            let place =
                if kind == DatabaseKind::Postgres { format!("${number}") } else { "?".to_owned() };
            after.push_str(&format!(" AND s.{} = {place}", quoted(name)));
        }
        // More than there can be, to notice a key that is none.
        after.push_str(&format!(" LIMIT {}", 2 * KEYS_MAX));
        Self {
            kind,
            before: statement,
            after,
            binds: rows.only.iter().map(|(_, value)| value.clone()).collect(),
            unit: rows.unit.unwrap_or(layout.sqlite),
            claims: rows.claims.clone(),
            hashed: layout.hash.is_some(),
            zone_of: (unit.is_none() && kind != DatabaseKind::Sqlite && rows.time_zone == UTC)
                .then(|| {
                    let table = rows.table.as_deref().unwrap_or(layout.table);
                    let table = table.rsplit('.').next().unwrap_or(table);
                    let column = rows.expires.as_deref().unwrap_or(layout.moment);
                    (table.to_owned(), column.to_owned())
                }),
        }
    }
}

impl Statement {
    /// For so many keys: few lengths, since databases prepare each of them.
    pub fn text(&self, keys: usize) -> String {
        let keys = match self.kind {
            DatabaseKind::Postgres => "= ANY($1)".to_owned(),
            _ => format!("IN ({})", vec!["?"; self.places(keys)].join(", ")),
        };
        format!("{}{keys}{}", self.before, self.after)
    }

    /// How many keys the statement has room for; the last is said again where there are fewer.
    pub fn places(&self, keys: usize) -> usize {
        [1, 8, 64].into_iter().find(|places| keys <= *places).unwrap_or(KEYS_MAX)
    }
}

/// What columns without a zone are read as by themselves.
const UTC: &str = "UTC";

/// PostgreSQL counts distances in a zone's name westward (POSIX); `+01:00` means what it says in SQL.
fn posix(zone: &str) -> String {
    match zone.split_at_checked(1) {
        Some(("+", rest)) => format!("-{rest}"),
        Some(("-", rest)) => format!("+{rest}"),
        _ => zone.to_owned(),
    }
}

/// `schema.table` is two names.
fn quote(kind: DatabaseKind, name: &str) -> String {
    let quote = if kind == DatabaseKind::MySql { '`' } else { '"' };
    let parts = name.split('.').map(|part| format!("{quote}{part}{quote}"));
    parts.collect::<Vec<_>>().join(".")
}

fn text(kind: DatabaseKind, column: &str) -> String {
    match kind {
        DatabaseKind::Postgres => format!("{column}::text"),
        DatabaseKind::Sqlite => format!("CAST({column} AS TEXT)"),
        DatabaseKind::MySql => format!("CAST({column} AS CHAR)"),
    }
}

/// Milliseconds since 1970; in SQLite the text of whatever is there.
fn moment(kind: DatabaseKind, column: &str, unit: Option<Unit>, zone: &str) -> String {
    let number = match kind {
        DatabaseKind::Sqlite => return text(kind, column),
        DatabaseKind::Postgres => format!("{column}::bigint"),
        DatabaseKind::MySql => format!("CAST({column} AS SIGNED)"),
    };
    match (kind, unit) {
        (_, Some(Unit::Milliseconds)) => number,
        (_, Some(Unit::Seconds)) => format!("{number} * 1000"),
        // No limit in 2038, as UNIX_TIMESTAMP has on older servers.
        (DatabaseKind::MySql, _) => {
            let column = if zone == UTC {
                column.to_owned()
            } else {
                format!("CONVERT_TZ({column}, '{zone}', '+00:00')")
            };
            format!(
                "CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {column}) DIV 1000 AS SIGNED)"
            )
        }
        _ => {
            let column = if zone == UTC {
                column.to_owned()
            } else {
                format!("({column} AT TIME ZONE '{}')", posix(zone))
            };
            format!("floor(extract(epoch from {column}) * 1000)::bigint")
        }
    }
}
