//! The bytes of Kafka's protocol: numbers, texts and arrays, as versions before the compact encodings have them.
//!
//! What is read comes from an address that a manifest names, so nothing in it is believed: no length makes room before
//! as many bytes are there.

/// What could not be read, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What is written.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn i8(&mut self, value: i8) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// Texts are names and values of a manifest, which its schema bounds; one past the protocol's limit is cut.
    pub(crate) fn text(&mut self, value: &str) {
        let bytes = value.as_bytes();
        let length = i16::try_from(bytes.len()).unwrap_or(i16::MAX);
        self.i16(length);
        self.0.extend(&bytes[..usize::from(length.unsigned_abs())]);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend(value);
    }

    pub(crate) fn array<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.length(items.len());
        for item in items {
            each(self, item);
        }
    }

    /// An array that is not there.
    pub(crate) fn no_array(&mut self) {
        self.i32(-1);
    }

    fn length(&mut self, length: usize) {
        self.i32(i32::try_from(length).expect("what a manifest holds is far below two gigabytes"));
    }

    /// All of it as a frame: the length, then the bytes.
    pub(crate) fn into_frame(self) -> Vec<u8> {
        let mut frame = Self::default();
        frame.bytes(&self.0);
        frame.0
    }
}

/// What is left to read.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends too soon"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends too soon"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        self.take_array().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.take_array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.take_array().map(i32::from_be_bytes)
    }

    /// `None` for a text that is not there.
    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a str>, Malformed> {
        let length = self.i16()?;
        if length == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(length).map_err(|_| Malformed("a negative length"))?)?;
        std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Malformed("a text that is not UTF-8"))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        self.optional_text()?.ok_or(Malformed("a text is missing"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.i32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed("a negative length"))?)
    }

    /// An array, empty when it is not there.
    pub(crate) fn array<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(Vec::new());
        }
        let length = usize::try_from(length).map_err(|_| Malformed("a negative length"))?;
        // No item is shorter than a byte, so no room is made for items that cannot be there.
        if length > self.0.len() {
            return Err(Malformed("an array longer than the answer"));
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(each(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_array_that_claims_more_than_is_there_makes_no_room() {
        let mut bytes = i32::MAX.to_be_bytes().to_vec();
        bytes.extend([0; 64]);
        let read = Reader::new(&bytes).array(Reader::i32);
        assert_eq!(read, Err(Malformed("an array longer than the answer")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(number: i32, text in ".{0,40}", items in prop::collection::vec(any::<i16>(), 0..9)) {
            let mut writer = Writer::default();
            writer.i32(number);
            writer.text(&text);
            writer.array(items.iter(), |writer, item| writer.i16(*item));
            writer.bytes(text.as_bytes());
            let frame = writer.into_frame();
            let mut outer = Reader::new(&frame);
            let body = outer.bytes().unwrap();
            prop_assert!(outer.0.is_empty());
            let mut reader = Reader::new(body);
            prop_assert_eq!(reader.i32(), Ok(number));
            prop_assert_eq!(reader.text(), Ok(text.as_str()));
            prop_assert_eq!(reader.array(Reader::i16), Ok(items));
            prop_assert_eq!(reader.bytes(), Ok(text.as_bytes()));
            prop_assert!(reader.0.is_empty());
        }
    }
}
