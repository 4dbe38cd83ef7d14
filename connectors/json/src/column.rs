//! One column that grows row by row and can be cut back.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, ByteArrayType, Date32Type, Decimal128Type, Float32Type, Float64Type,
    GenericBinaryType, GenericStringType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBufferBuilder, GenericByteArray, ListArray,
    OffsetSizeTrait, PrimitiveArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::cursor::{Cursor, Step};
use crate::error::{DecodeError, Label, Reason};
use crate::object::Object;
use crate::time::{self, Clock};
use crate::{number, schema};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One column.
///
/// `len` rows are complete. In the middle of a row the buffers may hold more
/// than that, and after an error they do: [`truncate`](Self::truncate) puts
/// that right from the lengths alone.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) label: Arc<Label>,
    pub(crate) nullable: bool,
    len: usize,
    /// Which rows are not null; none as long as all of them are.
    valid: Option<BooleanBufferBuilder>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Date32(Vec<i32>, Vec<u8>),
    Timestamp(Vec<i64>, Clock, Vec<u8>),
    Decimal128(Vec<i128>, Decimal),
    Utf8(Bytes<i32>),
    LargeUtf8(Bytes<i64>),
    Binary(Bytes<i32>, Vec<u8>),
    Json(Bytes<i32>),
    Struct(Object),
    List(List),
}

#[derive(Debug, Clone, Copy)]
struct Decimal {
    scale: i8,
    /// Ten to the power of the precision: the smallest number that is too big.
    limit: i128,
}

/// Values of any length, end to end.
#[derive(Debug)]
struct Bytes<O> {
    /// Where each value begins, and at last where the next one will.
    offsets: Vec<O>,
    data: Vec<u8>,
}

#[derive(Debug)]
struct List {
    offsets: Vec<i32>,
    item: Box<Column>,
}

/// Runs `$body` on the values of every kind that has one number per row.
macro_rules! for_numbers {
    ($kind:expr, $values:ident => $body:expr, $($other:tt)*) => {
        match $kind {
            Kind::Int8($values) => $body,
            Kind::Int16($values) => $body,
            Kind::Int32($values) => $body,
            Kind::Int64($values) => $body,
            Kind::UInt8($values) => $body,
            Kind::UInt16($values) => $body,
            Kind::UInt32($values) => $body,
            Kind::UInt64($values) => $body,
            Kind::Float32($values) => $body,
            Kind::Float64($values) => $body,
            Kind::Date32($values, _) => $body,
            Kind::Timestamp($values, ..) => $body,
            Kind::Decimal128($values, _) => $body,
            $($other)*
        }
    };
}

impl Column {
    /// A column for `field`, which the path `path` leads to.
    pub(crate) fn new(field: &Field, path: String, strict: bool) -> Result<Self, ArrowError> {
        let kind = Kind::new(field, &path, strict)?;
        let label = Arc::new(Label { path, type_name: schema::type_name(field) });
        Ok(Self { label, nullable: field.is_nullable(), len: 0, valid: None, kind })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reads the value at `at` as the next row; gives where it ends.
    pub(crate) fn read(&mut self, bytes: &[u8], at: usize) -> Step<usize> {
        let mut cursor = Cursor::new(bytes, at);
        match self.read_value(&mut cursor) {
            Ok(()) => Ok(cursor.at),
            Err(error) => Err(error.within(&self.label)),
        }
    }

    #[inline(always)]
    fn read_value(&mut self, cursor: &mut Cursor<'_>) -> Step<()> {
        if cursor.byte() == b'n'
            && let Some(at) = self.read_null(*cursor)?
        {
            cursor.at = at;
            return Ok(());
        }
        match &mut self.kind {
            Kind::Boolean(values) => values.append(boolean(cursor)?),
            Kind::Int8(values) => values.push(number::integer(cursor)?),
            Kind::Int16(values) => values.push(number::integer(cursor)?),
            Kind::Int32(values) => values.push(number::integer(cursor)?),
            Kind::Int64(values) => values.push(number::integer(cursor)?),
            Kind::UInt8(values) => values.push(number::integer(cursor)?),
            Kind::UInt16(values) => values.push(number::integer(cursor)?),
            Kind::UInt32(values) => values.push(number::integer(cursor)?),
            Kind::UInt64(values) => values.push(number::integer(cursor)?),
            Kind::Float32(values) => values.push(number::float32(cursor)?),
            Kind::Float64(values) => values.push(number::float64(cursor)?),
            Kind::Date32(values, scratch) => values.push(time::read_date(cursor, scratch)?),
            Kind::Timestamp(values, clock, scratch) => values.push(clock.read(cursor, scratch)?),
            Kind::Decimal128(values, Decimal { scale, limit }) => {
                values.push(number::decimal(cursor, *scale, *limit)?);
            }
            Kind::Utf8(bytes) => bytes.read_string(cursor)?,
            Kind::LargeUtf8(bytes) => bytes.read_string(cursor)?,
            Kind::Binary(bytes, scratch) => cursor.at = bytes.read_base64(*cursor, scratch)?,
            Kind::Json(bytes) => cursor.at = bytes.read_raw(*cursor)?,
            Kind::Struct(object) => cursor.at = object.read(cursor.bytes, cursor.at, self.len)?,
            Kind::List(list) => cursor.at = list.read(cursor.bytes, cursor.at)?,
        }
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
        self.len += 1;
        Ok(())
    }

    /// Steps over `null`, and gives where it ends. Does nothing where null is a
    /// value like any other.
    #[inline(never)]
    fn read_null(&mut self, mut cursor: Cursor<'_>) -> Step<Option<usize>> {
        if !self.nullable && matches!(self.kind, Kind::Json(_)) {
            return Ok(None);
        }
        let start = cursor.at;
        cursor.literal("null")?;
        if !self.nullable {
            return Err(DecodeError::new(start, Reason::Null));
        }
        self.push_null();
        Ok(Some(cursor.at))
    }

    /// The next row is null; or, beneath a parent that is null, anything.
    pub(crate) fn push_null(&mut self) {
        for_numbers! { &mut self.kind, values => values.push(Default::default()),
            Kind::Boolean(values) => values.append(false),
            Kind::Utf8(bytes) | Kind::Json(bytes) | Kind::Binary(bytes, _) => bytes.close(),
            Kind::LargeUtf8(bytes) => bytes.close(),
            Kind::Struct(object) => object.push_null(),
            Kind::List(list) => list.close(),
        }
        if self.nullable {
            let valid = self.valid.get_or_insert_with(|| {
                let mut valid = BooleanBufferBuilder::new(self.len + 1);
                valid.append_n(self.len, true);
                valid
            });
            valid.append(false);
        }
        self.len += 1;
    }

    /// Drops everything from row `len` on, incomplete rows included.
    pub(crate) fn truncate(&mut self, len: usize) {
        for_numbers! { &mut self.kind, values => values.truncate(len),
            Kind::Boolean(values) => values.truncate(len),
            Kind::Utf8(bytes) | Kind::Json(bytes) | Kind::Binary(bytes, _) => bytes.truncate(len),
            Kind::LargeUtf8(bytes) => bytes.truncate(len),
            Kind::Struct(object) => object.truncate(len),
            Kind::List(list) => list.truncate(len),
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(len);
        }
        self.len = self.len.min(len);
    }

    /// Bytes that the rows take.
    pub(crate) fn bytes(&self) -> usize {
        let values = for_numbers! { &self.kind, values => std::mem::size_of_val(values.as_slice()),
            Kind::Boolean(values) => values.len() / 8,
            Kind::Utf8(bytes) | Kind::Json(bytes) | Kind::Binary(bytes, _) => bytes.bytes(),
            Kind::LargeUtf8(bytes) => bytes.bytes(),
            Kind::Struct(object) => object.bytes(),
            Kind::List(list) => std::mem::size_of_val(list.offsets.as_slice()) + list.item.bytes(),
        };
        values + self.valid.as_ref().map_or(0, |valid| valid.len() / 8)
    }

    /// The rows as an array of the field's type. The column is empty again, and
    /// has room for about as many rows as there were.
    pub(crate) fn finish(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        self.len = 0;
        let nulls = self.valid.take().map(|valid| NullBuffer::new(valid.build()));
        let data_type = field.data_type();
        Ok(match &mut self.kind {
            Kind::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Kind::Int8(values) => primitive::<Int8Type>(values, nulls)?,
            Kind::Int16(values) => primitive::<Int16Type>(values, nulls)?,
            Kind::Int32(values) => primitive::<Int32Type>(values, nulls)?,
            Kind::Int64(values) => primitive::<Int64Type>(values, nulls)?,
            Kind::UInt8(values) => primitive::<UInt8Type>(values, nulls)?,
            Kind::UInt16(values) => primitive::<UInt16Type>(values, nulls)?,
            Kind::UInt32(values) => primitive::<UInt32Type>(values, nulls)?,
            Kind::UInt64(values) => primitive::<UInt64Type>(values, nulls)?,
            Kind::Float32(values) => primitive::<Float32Type>(values, nulls)?,
            Kind::Float64(values) => primitive::<Float64Type>(values, nulls)?,
            Kind::Date32(values, _) => primitive::<Date32Type>(values, nulls)?,
            // The representation is the same in every unit; the type says which.
            Kind::Timestamp(values, ..) => {
                retyped(&primitive::<Int64Type>(values, nulls)?, data_type)?
            }
            Kind::Decimal128(values, _) => {
                retyped(&primitive::<Decimal128Type>(values, nulls)?, data_type)?
            }
            Kind::Utf8(bytes) | Kind::Json(bytes) => {
                bytes.finish::<GenericStringType<i32>>(nulls)?
            }
            Kind::LargeUtf8(bytes) => bytes.finish::<GenericStringType<i64>>(nulls)?,
            Kind::Binary(bytes, _) => bytes.finish::<GenericBinaryType<i32>>(nulls)?,
            Kind::Struct(object) => {
                let (fields, arrays) = object.finish()?;
                Arc::new(StructArray::try_new(fields, arrays, nulls)?)
            }
            Kind::List(list) => list.finish(data_type, nulls)?,
        })
    }
}

impl Kind {
    fn new(field: &Field, path: &str, strict: bool) -> Result<Self, ArrowError> {
        Ok(match field.data_type() {
            DataType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::UInt8 => Self::UInt8(Vec::new()),
            DataType::UInt16 => Self::UInt16(Vec::new()),
            DataType::UInt32 => Self::UInt32(Vec::new()),
            DataType::UInt64 => Self::UInt64(Vec::new()),
            DataType::Float32 => Self::Float32(Vec::new()),
            DataType::Float64 => Self::Float64(Vec::new()),
            DataType::Date32 => Self::Date32(Vec::new(), Vec::new()),
            DataType::Timestamp(unit, zone) => {
                Self::Timestamp(Vec::new(), Clock::new(*unit, zone.as_deref())?, Vec::new())
            }
            DataType::Decimal128(precision, scale) => {
                let limit = 10_i128.pow(u32::from((*precision).min(38)));
                Self::Decimal128(Vec::new(), Decimal { scale: *scale, limit })
            }
            DataType::Utf8 if schema::is_json(field) => Self::Json(Bytes::new()),
            DataType::Utf8 => Self::Utf8(Bytes::new()),
            DataType::LargeUtf8 => Self::LargeUtf8(Bytes::new()),
            DataType::Binary => Self::Binary(Bytes::new(), Vec::new()),
            DataType::Struct(fields) => Self::Struct(Object::new(fields, path, strict)?),
            DataType::List(item) => {
                let item = Box::new(Column::new(item, format!("{path}[]"), strict)?);
                Self::List(List { offsets: vec![0], item })
            }
            other => return Err(ArrowError::NotYetImplemented(other.to_string())),
        })
    }
}

#[inline(always)]
fn boolean(cursor: &mut Cursor<'_>) -> Step<bool> {
    match cursor.byte() {
        b't' => cursor.literal("true").map(|()| true),
        b'f' => cursor.literal("false").map(|()| false),
        _ => Err(cursor.mismatch()),
    }
}

impl<O: OffsetSizeTrait> Bytes<O> {
    fn new() -> Self {
        Self { offsets: vec![O::default()], data: Vec::new() }
    }

    #[inline(always)]
    fn read_string(&mut self, cursor: &mut Cursor<'_>) -> Step<()> {
        cursor.copy_string(&mut self.data)?;
        self.close();
        Ok(())
    }

    #[inline(never)]
    fn read_base64(&mut self, mut cursor: Cursor<'_>, scratch: &mut Vec<u8>) -> Step<usize> {
        let opening = cursor;
        scratch.clear();
        cursor.copy_string(scratch)?;
        if BASE64.decode_vec(&scratch, &mut self.data).is_err() {
            return Err(opening.error(Reason::Text));
        }
        self.close();
        Ok(cursor.at)
    }

    #[inline(never)]
    fn read_raw(&mut self, cursor: Cursor<'_>) -> Step<usize> {
        let end = cursor.behind_value()?;
        let raw = cursor.bytes.get(cursor.at..end).unwrap_or_default();
        if std::str::from_utf8(raw).is_err() {
            return Err(cursor.error(Reason::Utf8));
        }
        self.data.extend_from_slice(raw);
        self.close();
        Ok(end)
    }

    /// The value ends here. The decoder lets no batch grow beyond what an
    /// offset can say, so this never wraps.
    #[inline(always)]
    fn close(&mut self) {
        self.offsets.push(O::usize_as(self.data.len()));
    }

    fn truncate(&mut self, len: usize) {
        if let Some(end) = self.offsets.get(len) {
            self.data.truncate(end.as_usize());
            self.offsets.truncate(len + 1);
        }
    }

    fn bytes(&self) -> usize {
        std::mem::size_of_val(self.offsets.as_slice()) + self.data.len()
    }

    fn finish<T: ByteArrayType<Offset = O>>(
        &mut self,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = take_offsets(&mut self.offsets);
        let data = Buffer::from_vec(take(&mut self.data));
        Ok(Arc::new(GenericByteArray::<T>::try_new(offsets, data, nulls)?))
    }
}

impl List {
    fn read(&mut self, bytes: &[u8], at: usize) -> Step<usize> {
        let mut cursor = Cursor::new(bytes, at);
        if cursor.byte() != b'[' {
            return Err(cursor.mismatch());
        }
        cursor.at += 1;
        cursor.skip_space();
        if cursor.byte() != b']' {
            loop {
                cursor.at = self.item.read(bytes, cursor.at)?;
                cursor.skip_space();
                match cursor.byte() {
                    b',' => cursor.at += 1,
                    b']' => break,
                    _ => return Err(cursor.expected("`,` or `]`")),
                }
                cursor.skip_space();
            }
        }
        self.close();
        Ok(cursor.at + 1)
    }

    #[inline]
    fn close(&mut self) {
        // In range for the same reason as in `Bytes::close`.
        self.offsets.push(self.item.len() as i32);
    }

    fn truncate(&mut self, len: usize) {
        if let Some(end) = self.offsets.get(len) {
            self.item.truncate(*end as usize);
            self.offsets.truncate(len + 1);
        }
    }

    fn finish(
        &mut self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let DataType::List(item) = data_type else {
            return Err(ArrowError::SchemaError(format!("{data_type} is no list")));
        };
        let offsets = take_offsets(&mut self.offsets);
        let items = self.item.finish(item)?;
        Ok(Arc::new(ListArray::try_new(FieldRef::clone(item), offsets, items, nulls)?))
    }
}

/// The content of a vector; what replaces it has room for a little more.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len() + values.len() / 16;
    std::mem::replace(values, Vec::with_capacity(room))
}

fn take_offsets<O: OffsetSizeTrait>(offsets: &mut Vec<O>) -> OffsetBuffer<O> {
    let taken = take(offsets);
    offsets.push(O::default());
    OffsetBuffer::new(ScalarBuffer::from(taken))
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(take(values)), nulls)?))
}

/// The same buffers under another type of the same layout.
fn retyped(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data().into_builder().data_type(data_type.clone()).build()?;
    Ok(arrow::array::make_array(data))
}
