//! Reading TOML into fields as the library's decoder does (`BurntSushi/toml`): keys in any case, types without conversion.
//!
//! It also takes `Location` for `location`, so we have to: what we overlooked would be missing in the entry that we write.

use toml::{Table, Value};

use super::document::Malformed;

/// Go's `strings.EqualFold`, for keys in ASCII: two letters outside of it fold into it.
fn same_key(key: &str, name: &str) -> bool {
    let fold = |text: &str| text.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase();
    fold(key) == fold(name)
}

/// The fields of a table.
pub(super) struct Fields<'table> {
    table: &'table Table,
    names: &'static [&'static str],
}

impl<'table> Fields<'table> {
    /// `names` are all the fields that the decoder knows there.
    pub(super) fn new(table: &'table Table, names: &'static [&'static str]) -> Self {
        Self { table, names }
    }

    fn belongs(&self, key: &str, name: &str) -> bool {
        key == name || (!self.names.contains(&key) && same_key(key, name))
    }

    /// The value of a field. Two spellings of one key: the decoder takes either, by chance.
    pub(super) fn get(&self, name: &str) -> Result<Option<&'table Value>, Malformed> {
        let mut values = self.table.iter().filter(|(key, _)| self.belongs(key, name)).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Malformed::Twice(name.to_owned())),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Malformed> {
        match self.get(name)? {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(Malformed::Type(name.to_owned(), "a string")),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Malformed> {
        match self.get(name)? {
            None => Ok(false),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(_) => Err(Malformed::Type(name.to_owned(), "a boolean")),
        }
    }

    /// An empty list is not the same as none.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let wrong = || Malformed::Type(name.to_owned(), "a list of strings");
        let Some(value) = self.get(name)? else { return Ok(None) };
        let list = value.as_array().ok_or_else(wrong)?;
        let texts = list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong));
        texts.collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn table(&self, name: &str) -> Result<Option<&'table Table>, Malformed> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        value.as_table().map(Some).ok_or_else(|| Malformed::Type(name.to_owned(), "a table"))
    }

    pub(super) fn tables(&self, name: &str) -> Result<Option<Vec<&'table Table>>, Malformed> {
        let wrong = || Malformed::Type(name.to_owned(), "a list of tables");
        let Some(value) = self.get(name)? else { return Ok(None) };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|item| item.as_table().ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }

    /// Keys that are none of the fields, with their values as they are written in one line.
    pub(super) fn others(&self) -> Vec<(String, String)> {
        let known = |key: &str| self.names.iter().any(|name| self.belongs(key, name));
        let others = self.table.iter().filter(|(key, _)| !known(key));
        others.map(|(key, value)| (key.clone(), value.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_in_any_case() {
        let table: Table = "Location = 'a'\n'in\u{17f}ecure' = true\nnew-key = { x = [1] }\n".parse().unwrap();
        let fields = Fields::new(&table, &["location", "insecure"]);
        assert_eq!(fields.text("location").unwrap(), "a");
        assert!(fields.flag("insecure").unwrap());
        assert_eq!(fields.others(), [("new-key".to_owned(), "{ x = [1] }".to_owned())]);
        assert!(fields.flag("location").is_err());
        let table: Table = "Location = 'a'\nlocation = 'b'\n".parse().unwrap();
        assert!(Fields::new(&table, &["location"]).get("location").is_err());
    }
}
