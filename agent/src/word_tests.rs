//! Enums that people meet as words have each word twice: where it is printed, counted or kept it is strum's, in JSON it is
//! serde's.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::Serialize;
use strum::VariantArray;

fn agree<T: Display + Debug + Serialize + VariantArray>() {
    for value in T::VARIANTS {
        assert_eq!(serde_json::to_value(value).expect("serializable"), value.to_string(), "{value:?}");
    }
}

fn are_read_back<T: Display + Debug + FromStr<Err: Debug> + PartialEq + VariantArray>() {
    for value in T::VARIANTS {
        assert_eq!(value.to_string().parse::<T>().expect("a word"), *value);
    }
}

#[test]
fn a_value_has_the_same_word_in_text_and_json() {
    agree::<crate::config::Mode>();
    agree::<crate::config::ModeChoice>();
    agree::<crate::detect::Verdict>();
    agree::<crate::doctor::CheckStatus>();
    agree::<crate::golang::Arch>();
    agree::<crate::golang::sites::SiteClass>();
    agree::<crate::cause::CauseKind>();
    agree::<crate::record::GapCause>();
    agree::<crate::record::WatchEnd>();
    agree::<crate::timeline::compare::Change>();
}

#[test]
fn words_in_a_recording_are_read_back() {
    are_read_back::<crate::detect::Verdict>();
    are_read_back::<crate::record::GapCause>();
    are_read_back::<crate::record::WatchEnd>();
}
