//! One row of a database by its key, read only.

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
use super::statement::Statement;
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

    /// The session whose key is `id`.
    pub async fn find(&self, statement: &Statement, id: &str) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Postgres(pool) => find_postgres(pool, statement, id).await,
            Self::MySql(pool) => find_mysql(pool, statement, id).await,
            Self::Sqlite(pool) => find_sqlite(pool, statement, id).await,
        }
    }
}

/// The same words for each database's own types.
macro_rules! finder {
    ($name:ident, $pool:ty, $row:ty, $moment:expr) => {
        async fn $name(
            pool: &$pool,
            statement: &Statement,
            id: &str,
        ) -> Result<Option<Row>, StoreError> {
            let mut query = sqlx::query(AssertSqlSafe(statement.text.clone())).bind(id.to_owned());
            for value in &statement.binds {
                query = match value {
                    Constant::Flag(flag) => query.bind(*flag),
                    Constant::Number(number) => query.bind(*number),
                    Constant::Text(text) => query.bind(text.clone()),
                };
            }
            let rows = query.fetch_all(pool).await?;
            let row: &$row = match rows.as_slice() {
                [] => return Ok(None),
                [row] => row,
                _ => return Err(StoreError::Several),
            };
            let mut claims = Map::new();
            for (place, name) in statement.claims.iter().enumerate() {
                let value: Option<String> = sqlx::Row::try_get(row, FIRST_CLAIM + place)?;
                claims.insert(name.clone(), value.map_or(Value::Null, Value::String));
            }
            let moment: fn(&$row, Unit) -> Result<Option<i64>, StoreError> = $moment;
            Ok(Some(Row {
                id: sqlx::Row::try_get::<Option<String>, _>(row, 0)?.unwrap_or_default(),
                user: sqlx::Row::try_get(row, 1)?,
                moment: moment(row, statement.unit)?,
                hash: match statement.hashed {
                    true => sqlx::Row::try_get(row, 3)?,
                    false => None,
                },
                claims,
            }))
        }
    };
}

/// Behind id, user, moment and hash.
const FIRST_CLAIM: usize = 4;

finder!(find_postgres, PgPool, sqlx::postgres::PgRow, |row, _| Ok(sqlx::Row::try_get(row, 2)?));
finder!(find_mysql, MySqlPool, sqlx::mysql::MySqlRow, |row, _| Ok(sqlx::Row::try_get(row, 2)?));
finder!(find_sqlite, SqlitePool, sqlx::sqlite::SqliteRow, |row, unit| {
    let text: Option<String> = sqlx::Row::try_get(row, 2)?;
    text.map(|text| moment_of(&text, unit).ok_or(StoreError::Moment(text))).transpose()
});

/// What SQLite had, as a number or a text.
fn moment_of(text: &str, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Seconds => text.parse::<i64>().ok()?.checked_mul(1000),
        Unit::Milliseconds => text.parse().ok(),
        Unit::Iso => time::parse(text),
    }
}
