//! One row of a database by its key, read only.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlPool, PgPool, SqlitePool};

use crate::config::{Constant, Database, DatabaseKind, Unit};

use super::preset::Row;
use super::statement::{KEYS_MAX, Statement};
use super::time;

/// A database and its connections.
pub enum Rows {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("several sessions have the same key; columns.id is none")]
    Several,
    #[error("{0:?} is no moment in the unit that is configured")]
    Moment(String),
}

/// Connections to one database.
const CONNECTIONS: u32 = 8;
/// Waiting for one of them.
const ACQUIRE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(300);
const LIFETIME: Duration = Duration::from_secs(1800);
/// While the application writes.
const SQLITE_BUSY: Duration = Duration::from_millis(250);

impl StoreError {
    /// True if what is configured is wrong, and asking again will not help.
    pub fn is_misfit(&self) -> bool {
        match self {
            Self::Several | Self::Moment(_) => true,
            Self::Database(error) => {
                matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Configuration(_))
            }
        }
    }
}

fn pool<D: sqlx::Database>() -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(IDLE)
        .max_lifetime(LIFETIME)
}

impl Rows {
    /// Connects when it is first asked.
    pub fn open(database: &Database) -> Result<Self, StoreError> {
        let url = database.url.expose();
        Ok(match database.kind {
            DatabaseKind::Postgres => {
                // Poolers between us and the database refuse the setting.
                let options = PgConnectOptions::from_str(url)?.extra_float_digits(None);
                let options = options.application_name("vestibule").disable_statement_logging();
                let pool: PgPoolOptions = pool();
                Self::Postgres(pool.connect_lazy_with(options))
            }
            DatabaseKind::MySql => {
                let options = MySqlConnectOptions::from_str(url)?.disable_statement_logging();
                let pool: MySqlPoolOptions = pool();
                Self::MySql(pool.connect_lazy_with(options))
            }
            DatabaseKind::Sqlite => {
                let path = url.strip_prefix("sqlite:").unwrap_or(url);
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .busy_timeout(SQLITE_BUSY)
                    .disable_statement_logging();
                let pool: SqlitePoolOptions = pool();
                Self::Sqlite(pool.connect_lazy_with(options))
            }
        })
    }

    /// The sessions that have these keys, 500 at most, by one statement.
    pub async fn find(&self, statement: &Statement, ids: &[String]) -> Result<Found, StoreError> {
        let rows = match self {
            Self::Postgres(pool) => {
                // In a transaction, and prepared under no name: poolers between us and the database
                // may give each transaction another connection, on which names mean other statements.
                let mut line = pool.begin_with(BEGIN).await?;
                let rows = find_postgres(&mut line, statement, ids).await?;
                line.commit().await?;
                rows
            }
            Self::MySql(pool) => find_mysql(&mut *pool.acquire().await?, statement, ids).await?,
            Self::Sqlite(pool) => find_sqlite(&mut *pool.acquire().await?, statement, ids).await?,
        };
        if rows.len() >= 2 * KEYS_MAX {
            return Err(StoreError::Several);
        }
        let mut found = Found::with_capacity(rows.len());
        for (id, row) in rows {
            // What is wrong with one is nothing to the others.
            let row = if found.contains_key(&id) { Err(StoreError::Several) } else { row };
            found.insert(id, row);
        }
        Ok(found)
    }
}

impl Rows {
    /// True if moments are kept without a time zone, so that whoever wrote them decided about it.
    pub async fn is_zoneless(&self, statement: &Statement) -> Result<bool, StoreError> {
        const TYPE: &str =
            "SELECT CAST(data_type AS CHAR(40)) FROM information_schema.columns WHERE ";
        let Some((table, column)) = &statement.zone_of else { return Ok(false) };
        let kind: Option<String> = match self {
            Self::Postgres(pool) => {
                let text = format!("{TYPE} table_name = $1 AND column_name = $2 LIMIT 1");
                let query = sqlx::query_scalar(AssertSqlSafe(text)).persistent(false);
                let mut line = pool.begin_with(BEGIN).await?;
                query.bind(table).bind(column).fetch_optional(&mut *line).await?
            }
            Self::MySql(pool) => {
                let text = format!("{TYPE} table_name = ? AND column_name = ? LIMIT 1");
                let query = sqlx::query_scalar(AssertSqlSafe(text));
                query.bind(table).bind(column).fetch_optional(pool).await?
            }
            Self::Sqlite(_) => None,
        };
        let kind = kind.unwrap_or_default();
        Ok(kind.trim() == "timestamp without time zone" || kind.trim() == "datetime")
    }
}

/// Rows by their keys, or why one cannot be read.
pub type Found = HashMap<String, Result<Row, StoreError>>;

type OneFound = (String, Result<Row, StoreError>);

/// The same words for each database's own types.
macro_rules! finder {
    ($name:ident, $database:ty, $keys:expr, $moment:expr) => {
        async fn $name(
            line: &mut <$database as sqlx::Database>::Connection,
            statement: &Statement,
            ids: &[String],
        ) -> Result<Vec<OneFound>, StoreError> {
            type OneRow = <$database as sqlx::Database>::Row;
            let query = sqlx::query::<$database>(AssertSqlSafe(statement.text(ids.len())));
            let mut query = ($keys)(query, statement, ids);
            for value in &statement.binds {
                query = match value {
                    Constant::Flag(flag) => query.bind(*flag),
                    Constant::Number(number) => query.bind(*number),
                    Constant::Text(text) => query.bind(text.clone()),
                };
            }
            let moment: fn(&OneRow, Unit) -> Result<Option<i64>, StoreError> = $moment;
            let read = |row: &OneRow| -> Result<OneFound, StoreError> {
                let mut claims = Map::new();
                for (place, name) in statement.claims.iter().enumerate() {
                    let value: Option<String> = sqlx::Row::try_get(row, FIRST_CLAIM + place)?;
                    claims.insert(name.clone(), value.map_or(Value::Null, Value::String));
                }
                let id = sqlx::Row::try_get::<Option<String>, _>(row, 0)?.unwrap_or_default();
                let user = sqlx::Row::try_get(row, 1)?;
                let hash = match statement.hashed {
                    true => sqlx::Row::try_get(row, 3)?,
                    false => None,
                };
                let row = moment(row, statement.unit).map(|moment| Row {
                    id: id.clone(),
                    user,
                    moment,
                    hash,
                    claims,
                });
                Ok((id, row))
            };
            query.fetch_all(line).await?.iter().map(read).collect()
        }
    };
}

/// Behind id, user, moment and hash.
const FIRST_CLAIM: usize = 4;

/// Nothing is written, and a statement that takes longer is given up by the database itself.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 1000";

finder!(
    find_postgres,
    sqlx::Postgres,
    |query: Query<sqlx::Postgres>, _: &Statement, ids: &[String]| {
        query.persistent(false).bind(ids.to_vec())
    },
    |row, _| Ok(sqlx::Row::try_get(row, 2)?)
);
finder!(
    find_mysql,
    sqlx::MySql,
    |query: Query<sqlx::MySql>, statement: &Statement, ids: &[String]| {
        padded(statement, ids).fold(query, |query, id| query.bind(id))
    },
    |row, _| Ok(sqlx::Row::try_get(row, 2)?)
);
finder!(
    find_sqlite,
    sqlx::Sqlite,
    |query: Query<sqlx::Sqlite>, statement: &Statement, ids: &[String]| {
        padded(statement, ids).fold(query, |query, id| query.bind(id))
    },
    |row, unit| {
        let text: Option<String> = sqlx::Row::try_get(row, 2)?;
        text.map(|text| moment_of(&text, unit).ok_or(StoreError::Moment(text))).transpose()
    }
);

type Query<D> = sqlx::query::Query<'static, D, <D as sqlx::Database>::Arguments>;

/// As many as the statement has places.
fn padded(statement: &Statement, ids: &[String]) -> impl Iterator<Item = String> {
    let last = ids.last().cloned().unwrap_or_default();
    let all = ids.iter().cloned().chain(std::iter::repeat(last));
    all.take(statement.places(ids.len()))
}

/// What SQLite had, as a number or a text.
fn moment_of(text: &str, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Seconds => text.parse::<i64>().ok()?.checked_mul(1000),
        Unit::Milliseconds => text.parse().ok(),
        Unit::Iso => time::parse(text),
    }
}
