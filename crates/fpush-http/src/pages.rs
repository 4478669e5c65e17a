//! The HTML: forms for trying the API out by hand, and the pages of the registered devices. No script, nothing from
//! elsewhere, every value escaped.

use std::fmt::{self, Write as _};

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use fpush_push::masked;
use fpush_registry::{Device, Dialect, Time};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A page of HTML: a heading, and what is below it.
pub(crate) struct Page {
    heading: &'static str,
    body: String,
}

/// The page that says who is here.
pub(crate) fn hello() -> Page {
    Page::new("Hello from mod_push_appserver!", "<p>This is fpush.</p>\n")
}

/// The page that says that all is well.
pub(crate) fn health() -> Page {
    Page::new("Health", "<p>RUNNING</p>\n")
}

/// The page that explains to users how to test.
pub(crate) fn selftest() -> Page {
    Page::new("Does push work?", SELFTEST)
}

/// A form that sends these fields to the address that it was fetched from. `secret` is a field that may stay empty.
pub(crate) fn form(heading: &'static str, fields: &[&str], secret: bool) -> Page {
    let required = fields.iter().map(|field| (*field, " required"));
    let optional = secret.then_some(("secret", ""));
    let mut body = "<form method=\"post\">\n".to_owned();
    for (field, required) in required.chain(optional) {
        push(
            &mut body,
            format_args!(
                "<label>{field} <input type=\"text\" name=\"{field}\" autocomplete=\"off\" autocapitalize=\"none\" \
                 spellcheck=\"false\"{required}></label>\n"
            ),
        );
    }
    body.push_str("<button type=\"submit\">send request</button>\n</form>\n");
    Page::new(heading, body)
}

/// The list of devices, and a link to the next ones if there are `more`. `base` is the way from the page's address to
/// the pages of the devices: `settings/`, or nothing.
pub(crate) fn devices(devices: &[Device], more: bool, base: &str) -> Page {
    let mut body = String::new();
    if devices.is_empty() {
        body.push_str("<p>No device is registered.</p>\n");
    }
    for device in devices {
        let Device { node, .. } = device;
        match device.dialect {
            Dialect::Seed | Dialect::P2 => push(
                &mut body,
                format_args!("<a href=\"{base}{}\">{}</a><br>\n", encoded(node), Escaped(node)),
            ),
            // Such a node needs no secret, because it is one.
            Dialect::Tigase => push(
                &mut body,
                format_args!("{} (Tigase)<br>\n", Escaped(&masked(node))),
            ),
        }
    }
    if let Some(last) = devices.last().filter(|_| more) {
        let here = if base.is_empty() { "./" } else { "settings" };
        push(
            &mut body,
            format_args!(
                "<p><a href=\"{here}?after={}\">Next devices</a></p>\n",
                encoded(&after(last))
            ),
        );
    }
    Page::new("List of devices (node uuids)", body)
}

/// What is known about a device, written as a Lua table, because the original did that.
pub(crate) fn device(device: &Device) -> Page {
    let Device {
        dialect,
        kind,
        node,
        secret: _,
        token,
        voip_token,
        owner,
        account,
        channel,
        registered,
        renewed,
        delivered,
        failed,
        former: _,
        imported: _,
        in_second: _,
    } = device;
    let time = |time: &Option<Time>| time.map(|time| time.to_string());
    let node = match dialect {
        Dialect::Seed | Dialect::P2 => node.clone(),
        Dialect::Tigase => masked(node),
    };
    let fields = [
        ("type", Some(kind.clone())),
        ("token", Some(token.clone())),
        ("call_token", voip_token.clone()),
        ("last_push_error", time(failed)),
        ("last_successful_push", time(delivered)),
        ("registered", Some(registered.to_string())),
        ("renewed", time(renewed)),
        ("node", Some(node)),
        ("secret", Some(device.masked_secret())),
        ("dialect", Some(dialect.name().to_owned())),
        ("owner", owner.clone()),
        ("account", account.clone()),
        ("channel", channel.clone()),
    ];
    let lines: Vec<_> = fields
        .into_iter()
        .filter_map(|(name, value)| Some(format!("  {name} = {}", quoted(&value?))))
        .collect();
    let table = format!("{{\n{}\n}}", lines.join(",\n"));
    let body = format!(
        "<a href=\"../settings\">Back to List</a><br>\n<pre>{}</pre>\n",
        Escaped(&table)
    );
    Page::new("Device", body)
}

/// The page for a node that nobody registered.
pub(crate) fn no_device() -> Page {
    Page::new(
        "Device",
        "<a href=\"../settings\">Back to List</a><br>\n<p>Node not found!</p>\n",
    )
}

impl Page {
    fn new(heading: &'static str, body: impl Into<String>) -> Self {
        Self {
            heading,
            body: body.into(),
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { heading, body } = self;
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mod_push_appserver</title>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <style>{STYLE}</style></head><body>\n<h1>{heading}</h1>\n{body}</body></html>"
        );
        let mut response = Html(html).into_response();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html;charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Text of others in HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => f.write_char(character),
        })
    }
}

/// A string of Lua.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What the next page of the list comes after: a node, or a text right behind it that does not give it away. Nodes of
/// Tigase's dialect are hexadecimal, and `g` comes after all such digits.
fn after(device: &Device) -> String {
    match device.dialect {
        Dialect::Seed | Dialect::P2 => device.node.clone(),
        Dialect::Tigase => device.node.chars().take(16).chain(['g']).collect(),
    }
}

fn encoded(node: &str) -> impl fmt::Display {
    utf8_percent_encode(node, NON_ALPHANUMERIC)
}

fn push(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string does not fail");
}

/// What browsers may do with our pages: nothing but show them, with this style, and send their forms back to us.
const POLICY: &str = "default-src 'none'; style-src 'sha256-ydYZ5M8Q5RdEwZ0ltr3BCCOPXFC4jPnIFTy+MjMYLA0='; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SELFTEST: &str = "<p>Two commands tell you why a phone stays silent. Send them from your own XMPP account to the address \
    of this push service, with any client that can execute commands (ad-hoc commands, XEP-0050).</p>\n\
    <ol>\n\
    <li><b>push-status</b> says what the pushes of your server were answered in the last day, and lists your registered \
    devices: when each registered, when a push to it was last accepted, and when one was last refused.</li>\n\
    <li><b>test-push</b> sends one visible push to a device: one of your own, or the one that you name by its node and \
    secret, or by push module and token. It answers what the provider said, and what to look at next.</li>\n\
    </ol>\n\
    <p>If test-push arrives and messages do not, your server does not publish: look whether push is switched on in the app, \
    and whether push-status counts anything for your server. If test-push is accepted and the phone shows nothing, look at \
    battery saving, and at the notification settings of the app. If it is refused, do what it says.</p>\n";

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:1rem/1.5 sans-serif;max-width:42rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}\
    h1{font-size:1.4rem}pre{white-space:pre-wrap}label{display:block;margin-bottom:.8rem}\
    input,button{display:block;box-sizing:border-box;width:100%;padding:.5rem;font:inherit}\
    a{display:inline-block;padding:.2rem 0}";

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    use super::*;

    #[test]
    fn the_policy_allows_the_style_of_the_pages() {
        let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
        assert!(
            POLICY.contains(&format!("'sha256-{hash}'")),
            "the policy must name sha256-{hash}"
        );
    }

    #[test]
    fn text_of_others_stays_text() {
        let hostile = "</pre><script>alert('1')</script>\"&amp;";
        assert_eq!(
            Escaped(hostile).to_string(),
            "&lt;/pre&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;amp;"
        );
        assert_eq!(quoted(r#"a"b\"#), r#""a\"b\\""#);
    }
}
