//! How old the rows are: a few marks, written all at once.

use rusqlite::{Connection, Error};

use super::super::store::Mark;
use crate::model::Timestamp;

pub(super) const SCHEMA: &str = "CREATE TABLE marks (position INTEGER PRIMARY KEY, wall INTEGER);";

pub(super) fn all(connection: &Connection) -> Result<Vec<Mark>, Error> {
    let mut statement = connection.prepare("SELECT position, wall FROM marks ORDER BY position")?;
    let marks =
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(Timestamp))))?;
    marks.collect()
}

pub(super) fn write(connection: &Connection, marks: &[Mark]) -> Result<(), Error> {
    connection.execute("DELETE FROM marks", [])?;
    let mut insert = connection.prepare("INSERT INTO marks VALUES (?1, ?2)")?;
    for (position, wall) in marks {
        insert.execute((position, wall.map(|wall| wall.0)))?;
    }
    Ok(())
}
