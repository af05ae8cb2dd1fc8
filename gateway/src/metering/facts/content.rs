//! Content for the model: whether it is all in the body, and what images and documents in it are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tollgate_policy::dialect::ContentMember;
use tollgate_policy::price::Detail;

use super::draft::{Draft, shown};
use super::{json, pdf, picture};

/// Reads one value of a content member, at any depth.
pub(super) struct Content<'d, 'a, 'de> {
    draft: &'d mut Draft<'a, 'de>,
    at: At,
}

/// Where the value stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// It is the member's own.
    Member,
    /// It is an item of the member's list.
    Item,
    /// It is, or holds, an image or a document.
    Carrier,
    Below,
}

/// What a value turned out to be.
#[derive(Clone, Copy, Default)]
pub(super) struct ContentValue<'de> {
    /// It was something other than `null`.
    is_something: bool,
    /// An image or a document that nobody has taken for one yet.
    carried: Option<Carried<'de>>,
    detail: Option<Detail>,
}

/// An image or a document.
#[derive(Clone, Copy)]
enum Carried<'de> {
    /// In base64.
    Inline(&'de str),
    /// In the body, in a form that is not read: so many bytes of it.
    Unread(usize),
    /// Elsewhere.
    Link,
}

impl<'d, 'a, 'de> Content<'d, 'a, 'de> {
    pub(super) const fn member(draft: &'d mut Draft<'a, 'de>) -> Member<'d, 'a, 'de> {
        Member(Self { draft, at: At::Member })
    }
}

/// A whole content member.
pub(super) struct Member<'d, 'a, 'de>(Content<'d, 'a, 'de>);

impl<'de> DeserializeSeed<'de> for Member<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.deserialize(deserializer).map(|_| ())
    }
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_, 'de> {
    type Value = ContentValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ContentValue<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_, '_, 'de> {
    type Value = ContentValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<ContentValue<'de>, E> {
        let carried = (self.at == At::Carrier).then(|| Carried::of(text));
        Ok(ContentValue { carried, ..ContentValue::SOMETHING })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ContentValue<'de>, E> {
        let carried = (self.at == At::Carrier).then(|| match Carried::of(text) {
            Carried::Link => Carried::Link,
            Carried::Inline(_) | Carried::Unread(_) => Carried::Unread(text.len()),
        });
        Ok(ContentValue { carried, ..ContentValue::SOMETHING })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<ContentValue<'de>, E> {
        Ok(ContentValue::SOMETHING)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<ContentValue<'de>, E> {
        Ok(ContentValue::SOMETHING)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<ContentValue<'de>, E> {
        Ok(ContentValue::SOMETHING)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<ContentValue<'de>, E> {
        Ok(ContentValue::SOMETHING)
    }

    fn visit_unit<E: Error>(self) -> Result<ContentValue<'de>, E> {
        Ok(ContentValue::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ContentValue<'de>, A::Error> {
        let at = if self.at == At::Member { At::Item } else { At::Below };
        while let Some(item) = items.next_element_seed(Content { draft: self.draft, at })? {
            self.draft.unclaimed(item.carried);
        }
        Ok(ContentValue::SOMETHING)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ContentValue<'de>, A::Error> {
        let Self { draft, at } = self;
        let mut object = ContentObject::new(at == At::Item && draft.rules().content.items_need_one);
        while let Some(name) = members.next_key_seed(json::Str)? {
            let member = object.class(draft, &name).ok_or_else(|| A::Error::custom("refused"))?;
            if name == "type" {
                object.take_kind(member, members.next_value_seed(TypeName)?);
                continue;
            }
            let found = if member.is_opaque {
                let is_something = members.next_value::<Option<IgnoredAny>>()?.is_some();
                ContentValue { is_something, ..ContentValue::default() }
            } else if member.details {
                let detail = members.next_value_seed(TypeName)?;
                ContentValue { detail: detail.as_deref().map(detail_of), ..ContentValue::default() }
            } else {
                let is_carried = member.carries || (at == At::Carrier && member.is_source);
                let at = if is_carried { At::Carrier } else { At::Below };
                members.next_value_seed(Content { draft, at })?
            };
            object.take(draft, (&name, member), found);
        }
        Ok(object.close(draft, at))
    }
}

impl ContentValue<'_> {
    const SOMETHING: Self = Self { is_something: true, carried: None, detail: None };
}

impl<'de> Carried<'de> {
    fn of(text: &'de str) -> Self {
        let head = text.get(..256).unwrap_or(text).as_bytes();
        if head.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:")) {
            let data = head
                .iter()
                .position(|byte| *byte == b',')
                .filter(|comma| head[..*comma].ends_with(b";base64"));
            return data.map_or(Self::Unread(text.len()), |comma| Self::Inline(&text[comma + 1..]));
        }
        // No base64 has a colon.
        if head.contains(&b':') { Self::Link } else { Self::Inline(text) }
    }
}

fn detail_of(word: &str) -> Detail {
    match word {
        "low" => Detail::Low,
        "high" => Detail::High,
        _ => Detail::Any,
    }
}

/// One object, while its members are read.
struct ContentObject<'de> {
    /// The deciding members that it has had, and those of them that are something.
    seen: u64,
    something: u64,
    is_whole: bool,
    has_type: bool,
    kind: Option<Cow<'de, str>>,
    carried: Option<Carried<'de>>,
    /// What carries it is an object.
    is_nested: bool,
    /// As the object says it, and as the value that carries its image does.
    detail: Detail,
    carried_detail: Option<Detail>,
}

impl<'de> ContentObject<'de> {
    const fn new(is_item: bool) -> Self {
        Self {
            seen: 0,
            something: 0,
            is_whole: !is_item,
            has_type: false,
            kind: None,
            carried: None,
            is_nested: false,
            detail: Detail::Any,
            carried_detail: None,
        }
    }

    /// What a member of this name means. `None`: it is refused, because two readers could take it for two.
    fn class<'a>(&mut self, draft: &mut Draft<'a, 'de>, name: &str) -> Option<&'a ContentMember> {
        const PLAIN: &ContentMember = &ContentMember::PLAIN;
        let rules = &draft.rules().content;
        let is_type = name == "type";
        let member = rules.member(name);
        let ambiguous = match member {
            Some(member) if self.seen & member.bit != 0 => Some(Cow::Borrowed(name)),
            _ if is_type => self.has_type.then_some(Cow::Borrowed(name)),
            Some(_) => None,
            None => {
                let decides =
                    |name: &str| name == "type" || rules.member(name).is_some_and(|member| member.bit != 0);
                json::folded(name).filter(|folded| decides(folded)).map(Cow::Owned)
            }
        };
        if let Some(member) = ambiguous {
            draft.refusal = Some(json::ambiguous(&format!("{}[].{member}", shown(&draft.at))));
            return None;
        }
        if member.is_none() && !is_type {
            draft.content_outside_by(|| {
                format!("`{}`, a member that the gateway does not know,", shown(name))
            });
        }
        let member = member.unwrap_or(PLAIN);
        self.seen |= member.bit;
        Some(member)
    }

    fn take_kind(&mut self, member: &ContentMember, kind: Option<Cow<'de, str>>) {
        self.is_whole |= member.identifies && kind.is_some();
        self.has_type = true;
        self.kind = kind;
    }

    fn take(
        &mut self,
        draft: &mut Draft<'_, 'de>,
        (name, member): (&str, &ContentMember),
        found: ContentValue<'de>,
    ) {
        if found.is_something {
            self.something |= member.bit;
            self.is_whole |= member.identifies;
            if member.refers {
                draft.content_outside_by(|| format!("`{name}`"));
            }
        }
        if found.carried.is_some() {
            draft.unclaimed(self.carried);
            self.carried = found.carried;
            self.is_nested |= found.detail.is_some();
        }
        match found.detail {
            Some(detail) if member.details => self.detail = detail,
            carried => self.carried_detail = self.carried_detail.or(carried),
        }
    }

    fn close(self, draft: &mut Draft<'_, 'de>, at: At) -> ContentValue<'de> {
        let rules = &draft.rules().content;
        if !self.is_whole {
            draft.content_outside("an item that only refers to another");
        }
        let kind = self.kind.as_deref().unwrap_or_default();
        if rules.images.contains(kind) {
            draft.image(self.carried, self.carried_detail.unwrap_or(self.detail));
            return ContentValue::SOMETHING;
        }
        if rules.documents.contains(kind) {
            draft.document(self.carried);
            return ContentValue::SOMETHING;
        }
        if self.has_type {
            draft.note_kind(kind, self.something);
        }
        if at == At::Carrier {
            let carried = self.carried.filter(|_| !rules.text_sources.contains(kind));
            return ContentValue { is_something: true, carried, detail: Some(self.detail) };
        }
        if self.is_nested || !rules.citing.contains(kind) {
            draft.unclaimed(self.carried);
        }
        ContentValue::SOMETHING
    }
}

impl<'de> Draft<'_, 'de> {
    /// An image or a document where none is expected may be read all the same.
    fn unclaimed(&mut self, carried: Option<Carried<'de>>) {
        if carried.is_some() {
            self.content_outside("an image or document within content of another type");
        }
    }

    fn image(&mut self, carried: Option<Carried<'de>>, detail: Detail) {
        match carried {
            Some(Carried::Inline(base64)) => self.add_image(picture::size(base64), detail, base64.len()),
            Some(Carried::Unread(bytes)) => self.add_image(None, detail, bytes),
            Some(Carried::Link) => {
                self.add_image(None, detail, 0);
                self.content_outside("an image by URL");
            }
            None => {
                self.add_image(None, detail, 0);
                self.content_outside("an image that is not in the body");
            }
        }
    }

    fn document(&mut self, carried: Option<Carried<'de>>) {
        match carried {
            Some(Carried::Inline(base64)) => match pdf::pages(base64) {
                Some(pages) => self.add_pages(pages, base64.len()),
                None => self.content_outside("a PDF whose pages cannot be counted"),
            },
            Some(Carried::Unread(_)) => self.content_outside("a PDF whose pages cannot be counted"),
            Some(Carried::Link) => self.content_outside("a document by URL"),
            None => {}
        }
    }

    /// Notes the type of a piece of content; `something` are the deciding members of it that are not `null`.
    fn note_kind(&mut self, kind: &str, something: u64) {
        let rules = &self.rules().content;
        if rules.plain.contains(kind) {
            return;
        }
        let needed = rules.only_with.get(kind);
        let has = |needed: &str| rules.member(needed).is_some_and(|member| member.bit & something != 0);
        if needed.is_some_and(|needed| has(needed)) {
            return;
        }
        if needed.is_some() && rules.written_before.contains(kind) {
            self.add_written_before();
        } else if needed.is_some() {
            self.content_outside("an item that is stored at the provider");
        } else if rules.is_unbounded(kind) {
            let within = shown(&self.at);
            self.unbounded(|| {
                format!("content in `{within}` that brings tools or starts work of the provider")
            });
        } else {
            self.content_outside("content of a type that is not held at less");
        }
    }
}

/// A type, or nothing where it is no string.
pub(super) struct TypeName;

impl<'de> DeserializeSeed<'de> for TypeName {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TypeName {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a type")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
