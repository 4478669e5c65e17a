//! The table of backends: the one place that names them.

use fpush_push::BackendType;

/// One kind of push module.
pub(crate) struct Row {
    /// `type` in the settings.
    pub(crate) name: &'static str,
    /// The Cargo feature that brings it.
    pub(crate) feature: &'static str,
    /// The section of a module of its own that it reads, if it has one.
    pub(crate) section: Option<&'static str>,
    /// Reads its settings; `None` if this build leaves it out.
    pub(crate) backend: Option<Box<dyn BackendType>>,
}

macro_rules! row {
    ($name:literal, $section:expr, $feature:literal, $type:ty) => {{
        #[cfg(feature = $feature)]
        let backend: Option<Box<dyn BackendType>> = Some(Box::<$type>::default());
        #[cfg(not(feature = $feature))]
        let backend = None;
        Row {
            name: $name,
            feature: $feature,
            section: $section,
            backend,
        }
    }};
}

pub(crate) fn table() -> Vec<Row> {
    vec![
        row!("apple", Some("apns"), "enable_apns_support", fpush_apns::Apple),
        row!("google", Some("fcm"), "enable_fcm_support", fpush_fcm::Google),
        row!(
            "webpush",
            Some("webpush"),
            "enable_webpush_support",
            fpush_webpush::WebPush
        ),
        row!("demo", None, "enable_demo_support", fpush_demo::Demo),
    ]
}
