//! A file of baskets: CSV, plain or gzipped, with one line for each product of a basket.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use contracts::orders::v1::{Address, Contact, OrderLine};
use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

/// Amounts are in cents of this currency.
pub const CURRENCY: &str = "USD";

/// 5,000 real baskets; `data/README.md` says where they are from.
pub const REAL_BASKETS: &[u8] = include_bytes!("../data/baskets.csv.gz");

/// Largest file, packed and unpacked. A device or a damaged archive must not fill the memory.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Above every plausible amount, and low enough for exact arithmetic in 64 bits.
const MAX_CENTS: i64 = 1_000_000_000_000_000_000;

/// Why a file of baskets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Unreadable {
        /// The file.
        file: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The file starts like a gzip file, but is invalid or incomplete.
    #[error("{file}: damaged gzip data")]
    Damaged {
        /// The file.
        file: String,
        /// The error.
        source: io::Error,
    },
    /// The header lacks a column.
    #[error("{file}:1: the header has no column {column}; expected {}", COLUMNS.join(", "))]
    Header {
        /// The file.
        file: String,
        /// The missing column.
        column: &'static str,
    },
    /// A line cannot be parsed.
    #[error("{file}:{line}: {reason}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The error.
        reason: String,
    },
    /// The file has no baskets.
    #[error("{file}: no baskets")]
    Empty {
        /// The file.
        file: String,
    },
}

const COLUMNS: [&str; 6] = [
    "basket_id",
    "customer_id",
    "sku",
    "description",
    "quantity",
    "amount_cents",
];

/// A file of baskets. It is read completely before anything is sent, so that an invalid file sends nothing.
#[derive(Clone, Debug)]
pub struct BasketFile {
    /// File name without the folder.
    pub name: String,
    /// SHA-256 of the bytes, in hex.
    pub digest: String,
    /// In the order of the file.
    pub baskets: Vec<Basket>,
}

/// One purchase of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basket {
    /// Unique in the file.
    pub id: String,
    /// The customer.
    pub customer_id: String,
    /// One for each product.
    pub lines: Vec<Line>,
}

/// A product in a basket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Line number in the file, from 1.
    pub number: u64,
    /// The product.
    pub sku: String,
    /// Name of the product.
    pub description: String,
    /// Pieces; may be 0.
    pub quantity: u32,
    /// Amount of the whole line, after discounts.
    pub amount_cents: i64,
}

impl BasketFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable {
            file: path.display().to_string(),
            source,
        };
        let bytes = File::open(path)
            .and_then(|file| read_limited(file, MAX_BYTES))
            .map_err(unreadable)?;
        let mut file = Self::parse(&path.display().to_string(), &bytes)?;
        if let Some(name) = path.file_name() {
            file.name = name.to_string_lossy().into_owned();
        }
        Ok(file)
    }

    /// Reads the bytes of a file called `name`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let digest = hex::encode(Sha256::digest(bytes));
        let unpacked = bytes.starts_with(GZIP_MAGIC).then(|| {
            read_limited(MultiGzDecoder::new(bytes), MAX_BYTES).map_err(|source| {
                let file = name.to_owned();
                match source.kind() {
                    io::ErrorKind::FileTooLarge => Error::Unreadable { file, source },
                    _ => Error::Damaged { file, source },
                }
            })
        });
        let unpacked = unpacked.transpose()?;
        let baskets = baskets(name, unpacked.as_deref().unwrap_or(bytes))?;
        Ok(Self {
            name: name.to_owned(),
            digest,
            baskets,
        })
    }

    /// Keeps only the first `limit` baskets.
    pub fn truncate(&mut self, limit: usize) {
        self.baskets.truncate(limit);
    }

    /// Number of lines of all baskets.
    pub fn line_count(&self) -> usize {
        self.baskets.iter().map(|basket| basket.lines.len()).sum()
    }
}

impl Basket {
    /// A contact derived from the customer id: the file has no addresses.
    pub fn contact(&self) -> Contact {
        let customer = &self.customer_id;
        Contact {
            email: format!("customer-{customer}@example.com"),
            phone: String::new(),
            address: Some(Address {
                name: format!("Customer {customer}"),
                street: format!("{customer} Market Street"),
                postal_code: "45202".into(),
                city: "Cincinnati".into(),
                country: "US".into(),
            }),
        }
    }
}

impl Line {
    /// An order line whose total is exactly the amount: the unit price is rounded up, and the discount compensates for
    /// it.
    pub fn order_line(&self) -> OrderLine {
        let (unit_price, discount) = unit_price_and_discount(self.quantity, self.amount_cents);
        OrderLine {
            sku: self.sku.clone(),
            quantity: self.quantity,
            unit_price,
            discount,
            description: self.description.clone(),
        }
    }
}

/// Reads everything, but not more than `max` bytes.
fn read_limited(reader: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Unit price and discount of `quantity` pieces that cost `amount` together. A line without pieces is sent unchanged,
/// and the API refuses it.
fn unit_price_and_discount(quantity: u32, amount: i64) -> (i64, i64) {
    if quantity == 0 {
        return (amount, 0);
    }
    let pieces = i64::from(quantity);
    let unit_price = amount.div_euclid(pieces) + i64::from(amount.rem_euclid(pieces) != 0);
    (unit_price, unit_price * pieces - amount)
}

fn baskets(file: &str, text: &[u8]) -> Result<Vec<Basket>, Error> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text);
    let columns = Columns::of(
        file,
        reader.headers().map_err(|error| bad_csv(file, &error))?,
    )?;
    let mut baskets: Vec<Basket> = Vec::new();
    let mut basket_ids = HashSet::new();
    let mut record = StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| bad_csv(file, &error))?
    {
        let number = record.position().map_or(0, csv::Position::line);
        let wrong = |reason: String| Error::Line {
            file: file.to_owned(),
            line: number,
            reason,
        };
        let (basket_id, customer_id, line) = columns.read(number, &record).map_err(wrong)?;
        match baskets.last_mut() {
            Some(basket) if basket.id == basket_id => {
                if basket.customer_id != customer_id {
                    return Err(wrong(format!("basket {basket_id} has two customers")));
                }
                basket.lines.push(line);
            }
            _ => {
                if !basket_ids.insert(basket_id.to_owned()) {
                    let reason = "the lines of a basket must be consecutive";
                    return Err(wrong(format!("basket {basket_id} appears again: {reason}")));
                }
                baskets.push(Basket {
                    id: basket_id.to_owned(),
                    customer_id: customer_id.to_owned(),
                    lines: vec![line],
                });
            }
        }
    }
    if baskets.is_empty() {
        return Err(Error::Empty {
            file: file.to_owned(),
        });
    }
    Ok(baskets)
}

/// The index of each column of [`COLUMNS`].
struct Columns([usize; COLUMNS.len()]);

impl Columns {
    fn of(file: &str, header: &StringRecord) -> Result<Self, Error> {
        let mut indexes = [0; COLUMNS.len()];
        for (index, column) in indexes.iter_mut().zip(COLUMNS) {
            *index = header
                .iter()
                .position(|title| title == column)
                .ok_or_else(|| Error::Header {
                    file: file.to_owned(),
                    column,
                })?;
        }
        Ok(Self(indexes))
    }

    fn read<'a>(
        &self,
        number: u64,
        record: &'a StringRecord,
    ) -> Result<(&'a str, &'a str, Line), String> {
        // The csv crate has checked that every record has as many fields as the header.
        let [basket_id, customer_id, sku, description, quantity, amount] =
            self.0.map(|index| record.get(index).unwrap_or_default());
        if basket_id.is_empty() {
            return Err("basket_id is empty".to_owned());
        }
        let quantity = quantity
            .parse()
            .map_err(|_| format!("quantity '{quantity}' is not a number of pieces"))?;
        let amount_cents = amount
            .parse()
            .ok()
            .filter(|cents| (-MAX_CENTS..=MAX_CENTS).contains(cents))
            .ok_or_else(|| format!("amount_cents '{amount}' is not an amount in cents"))?;
        let line = Line {
            number,
            sku: sku.to_owned(),
            description: description.to_owned(),
            quantity,
            amount_cents,
        };
        Ok((basket_id, customer_id, line))
    }
}

fn bad_csv(file: &str, error: &csv::Error) -> Error {
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("{len} columns instead of {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not valid UTF-8".to_owned(),
        _ => error.to_string(),
    };
    let line = error.position().map_or(1, csv::Position::line);
    Error::Line {
        file: file.to_owned(),
        line,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use contracts::rules::line_total;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "basket_id,placed_at,customer_id,sku,description,quantity,amount_cents\n";

    fn parse(lines: &str) -> Result<BasketFile, Error> {
        BasketFile::parse("b.csv", format!("{HEADER}{lines}").as_bytes())
    }

    fn refused(lines: &str) -> String {
        let message = parse(lines).expect_err("it is not well formed").to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        assert_eq!(
            read_limited(io::repeat(b'a').take(10), 10).unwrap().len(),
            10
        );
        let error = read_limited(io::repeat(b'a'), 10).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 10 bytes");
    }

    #[test]
    fn all_real_baskets_are_read() {
        let file = BasketFile::parse("baskets.csv.gz", REAL_BASKETS).unwrap();
        let lines: Vec<_> = file
            .baskets
            .iter()
            .flat_map(|basket| &basket.lines)
            .collect();
        assert_eq!(file.baskets.len(), 5_000);
        assert_eq!((file.line_count(), lines.len()), (50_422, 50_422));
        assert_eq!(lines.iter().filter(|line| line.quantity == 0).count(), 243);
        assert_eq!(
            lines.iter().map(|line| line.amount_cents).sum::<i64>(),
            15_085_609
        );
        assert_eq!(
            lines
                .iter()
                .map(|line| &line.sku)
                .collect::<HashSet<_>>()
                .len(),
            15_688
        );
        assert_eq!(
            file.baskets.iter().map(|basket| basket.lines.len()).max(),
            Some(153)
        );
        // The header is line 1.
        assert_eq!(lines.last().map(|line| line.number), Some(50_423));
        let exact = lines.iter().filter(|line| line.quantity > 0);
        assert!(
            exact
                .into_iter()
                .all(|line| line_total(&line.order_line()) == Some(line.amount_cents))
        );
    }

    #[test]
    fn plain_and_gzipped_files_are_read() {
        let text =
            format!("{HEADER}7,t,ada,mug,Mug,2,501\n7,t,ada,hat,Hat,1,0\n8,t,bob,mug,Mug,0,3\n");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let plain = BasketFile::parse("b.csv", text.as_bytes()).unwrap();
        let unzipped = BasketFile::parse("b.csv.gz", &gzip).unwrap();
        assert_eq!(plain.baskets, unzipped.baskets);
        assert_ne!(plain.digest, unzipped.digest);
        let [first, second] = &plain.baskets[..] else {
            panic!("two baskets")
        };
        assert_eq!(
            (first.id.as_str(), first.lines.len(), second.lines.len()),
            ("7", 2, 1)
        );
        assert_eq!(second.lines[0].number, 4);

        let message = BasketFile::parse("b.csv.gz", &gzip[..gzip.len() / 2])
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("b.csv.gz: damaged gzip data"),
            "{message}"
        );
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let message = BasketFile::parse("b.csv", b"basket_id,sku\n1,a\n")
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("b.csv:1: the header has no column customer_id"),
            "{message}"
        );
        assert_eq!(parse("").unwrap_err().to_string(), "b.csv: no baskets");
        assert_eq!(
            refused("1,t,c,s,d,1,1\n1,t,c,s,d,1\n"),
            "b.csv:3: 6 columns instead of 7"
        );
        assert_eq!(
            refused("1,t,c,s,d,two,1\n"),
            "b.csv:2: quantity 'two' is not a number of pieces"
        );
        assert_eq!(
            refused("1,t,c,s,d,-1,1\n"),
            "b.csv:2: quantity '-1' is not a number of pieces"
        );
        assert_eq!(
            refused("1,t,c,s,d,1,1.5\n"),
            "b.csv:2: amount_cents '1.5' is not an amount in cents"
        );
        assert!(refused("1,t,c,s,d,1,9223372036854775807\n").contains("is not an amount"));
        assert!(
            refused("1,t,c,s,d,1,1\n2,t,c,s,d,1,1\n1,t,c,x,d,1,1\n")
                .starts_with("b.csv:4: basket 1 appears again")
        );
        assert_eq!(
            refused("1,t,c,s,d,1,1\n1,t,x,s2,d,1,1\n"),
            "b.csv:3: basket 1 has two customers"
        );
        let message = BasketFile::parse(
            "b.csv",
            &[HEADER.as_bytes(), b"1,t,c,\xff,d,1,1\n"].concat(),
        );
        assert_eq!(message.unwrap_err().to_string(), "b.csv:2: not valid UTF-8");
    }

    proptest! {
        #[test]
        fn the_total_of_an_order_line_is_exactly_its_amount(
            quantity in 1..=1_000_000_u32,
            amount in 0..=1_000_000_000_000_i64,
        ) {
            let (unit_price, discount) = unit_price_and_discount(quantity, amount);
            prop_assert_eq!(unit_price * i64::from(quantity) - discount, amount);
            prop_assert!((0..i64::from(quantity)).contains(&discount));
        }

        #[test]
        fn any_bytes_are_read_or_refused_on_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let whole = [HEADER.as_bytes(), &bytes].concat();
            if let Err(error) = BasketFile::parse("b.csv", &whole) {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
