//! The query and the body of a call.

use serde_json::Number;

use super::template::Template;

/// What goes into a query or a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameters {
    /// Nothing.
    None,
    /// These, in this order.
    Each(Vec<(String, Template)>),
    /// Every attribute, in the order it came.
    All,
}

impl Parameters {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Each(pairs) => pairs.iter().any(|(_, value)| value.varies()),
        }
    }
}

/// The body of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing.
    None,
    /// A form.
    Form(Parameters),
    /// A JSON document.
    Json(Json),
}

impl Body {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::None => false,
            Self::Form(form) => form.varies(),
            Self::Json(json) => json.varies(),
        }
    }
}

/// JSON with placeholders in its strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Template),
    /// The object of all attributes.
    All,
    /// A list.
    List(Vec<Self>),
    /// An object, its members in the order written.
    Object(Vec<(String, Self)>),
}

impl Json {
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::Flag(_) | Self::Number(_) => false,
            Self::Text(text) => text.varies(),
            Self::All => true,
            Self::List(list) => list.iter().any(Self::varies),
            Self::Object(members) => members.iter().any(|(_, value)| value.varies()),
        }
    }
}
