//! Devices of mod_push_appserver in Prosody's storage folder.
//!
//! Prosody keeps one file for each node, `<host>/push_appserver/<node>.dat`, with host and node escaped (`%2e`). Its
//! content is a table in the syntax of Lua.

mod lua;

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fpush_push::files;

use crate::{
    device::{Device, Dialect},
    time::Time,
};

/// Why a file is not a device. It holds nothing of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is larger than any device.
    #[error("is larger than 64 KiB")]
    TooLarge,
    /// It is not a table as Prosody writes it.
    #[error("is not a table as Prosody writes it, from byte {0} on")]
    Syntax(usize),
    /// A key is missing, or has no text.
    #[error("has no text for \"{0}\"")]
    Missing(&'static str),
    /// A time has another form.
    #[error("\"{0}\" is not in the form 2017-03-18T04:07:44Z")]
    Time(&'static str),
    /// The name of the file is that of another node.
    #[error("is named after another node than the one in it")]
    Name,
    /// A field is empty, too long, or has control characters.
    #[error("has a field that is empty, too long, or has control characters")]
    Field,
}

/// The files of devices: in the folder itself if it is a store of the module, else in the stores of all hosts below.
/// They come in the order of their paths.
///
/// # Errors
///
/// A folder cannot be read.
pub fn find(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if is_store(folder) {
        add_files(folder, &mut files)?;
    } else {
        for child in children(folder)? {
            if is_store(&child) {
                add_files(&child, &mut files)?;
            } else if child.is_dir() {
                for store in children(&child)?.into_iter().filter(|path| is_store(path)) {
                    add_files(&store, &mut files)?;
                }
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads the device in a file.
///
/// # Errors
///
/// There is none; see [`ImportError`].
pub fn read(file: &Path) -> Result<Device, ImportError> {
    let mut content = Vec::new();
    let opened = files::open(file)?;
    // For a device that has not even a time: the same one each time that it is imported.
    let written = opened.metadata()?.modified()?;
    opened.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(ImportError::TooLarge);
    }
    let content = files::without_mark(&content).map_err(|_| ImportError::Syntax(0))?;
    let name = file.file_stem().and_then(|name| name.to_str()).and_then(unescape);
    device(content, name.as_deref(), written.into())
}

pub(crate) fn device(content: &[u8], name: Option<&str>, written: Time) -> Result<Device, ImportError> {
    let texts = lua::parse(content).map_err(ImportError::Syntax)?;
    let optional = |key: &str| {
        texts
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, text)| text.clone())
    };
    let required = |key: &'static str| optional(key).ok_or(ImportError::Missing(key));
    let time = |key: &'static str| match optional(key) {
        None => Ok(None),
        Some(text) => Time::parse(&text).map(Some).ok_or(ImportError::Time(key)),
    };
    let node = match (optional("node"), name) {
        (Some(node), Some(name)) if node != name => return Err(ImportError::Name),
        (Some(node), _) => node,
        (None, Some(name)) => name.to_owned(),
        (None, None) => return Err(ImportError::Missing("node")),
    };
    let device = Device {
        dialect: Dialect::Seed,
        kind: required("type")?,
        node,
        secret: required("secret")?,
        token: required("token")?,
        voip_token: None,
        owner: None,
        account: None,
        channel: None,
        registered: time("registered")?.unwrap_or(written),
        renewed: time("renewed")?,
        delivered: time("last_successful_push")?,
        failed: time("last_push_error")?,
        former: Vec::new(),
        imported: true,
        in_second: false,
    };
    if device.is_sane() {
        Ok(device)
    } else {
        Err(ImportError::Field)
    }
}

fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Whether a folder is a store of the module; old versions of Prosody escape the underscore, too.
fn is_store(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name, Some("push_appserver" | "push%5fappserver")) && path.is_dir()
}

fn add_files(store: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let found = children(store)?;
    let is_data = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "dat");
    files.extend(found.into_iter().filter(is_data));
    Ok(())
}

/// A device as a file in a store of the module: the file's name, and what is in it. `None` if the module knows no such device:
/// it registered with other commands, or its node is too long for a file's name.
#[must_use]
pub fn to_file(device: &Device) -> Option<(String, String)> {
    match device.dialect {
        Dialect::Seed => {}
        Dialect::P2 | Dialect::Tigase => return None,
    }
    let name = escape(&device.node) + ".dat";
    if name.len() > LONGEST_NAME {
        return None;
    }
    let mut content = "return {\n".to_owned();
    let mut add = |key: &str, text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        content.push_str(&format!("\t[\"{key}\"] = \"{text}\";\n"));
    };
    for (key, text) in [
        ("type", &device.kind),
        ("node", &device.node),
        ("secret", &device.secret),
        ("token", &device.token),
    ] {
        add(key, text);
    }
    for (key, time) in [
        ("registered", Some(device.registered)),
        ("renewed", device.renewed),
        ("last_successful_push", device.delivered),
        ("last_push_error", device.failed),
    ] {
        if let Some(time) = time {
            add(key, &time.whole_seconds().to_string());
        }
    }
    content.push_str("};\n");
    Some((name, content))
}

/// Prosody's escaping of a name.
fn escape(name: &str) -> String {
    name.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
        escaped
    })
}

/// Takes back Prosody's escaping of a name.
pub(crate) fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after
            .first_chunk::<2>()
            .filter(|_| byte == b'%')
            .and_then(|digits| {
                let digits = str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 16).ok()
            });
        match escaped {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Bytes of a file's name, on most file systems.
const LONGEST_NAME: usize = 255;
/// Bytes of a file.
const LARGEST: u64 = 64 * 1_024;
#[cfg(test)]
mod tests {
    use fpush_testkit::TempDir;
    use proptest::prelude::*;

    use super::*;

    /// As Prosody 0.12 writes it.
    const FILE: &str = r#"return {
	["token"] = "DEADBEEFABCDEF";
	["renewed"] = "2017-03-18T02:54:51Z";
	["last_push_error"] = "2017-03-18T04:07:44Z";
	["secret"] = "384e51b4b2d5e475";
	["type"] = "apns";
	["registered"] = "2017-03-17T02:10:21Z";
	["last_successful_push"] = "2017-03-18T03:54:24Z";
	["node"] = "E0FF1D8C-EB96-4E10";
};
"#;

    fn texts(content: &str) -> Option<Vec<(String, String)>> {
        lua::parse(content.as_bytes()).ok()
    }

    fn one(key: &str, value: &str) -> Option<Vec<(String, String)>> {
        Some(vec![(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_file_of_the_module_is_a_device() {
        let device = device(FILE.as_bytes(), Some("E0FF1D8C-EB96-4E10"), Time(0)).unwrap();
        assert_eq!(
            (device.kind.as_str(), device.token.as_str()),
            ("apns", "DEADBEEFABCDEF")
        );
        assert_eq!(
            (device.node.as_str(), device.secret.as_str()),
            ("E0FF1D8C-EB96-4E10", "384e51b4b2d5e475")
        );
        assert_eq!(device.registered.to_string(), "2017-03-17T02:10:21Z");
        assert_eq!(device.renewed.unwrap().to_string(), "2017-03-18T02:54:51Z");
        assert_eq!(device.delivered.unwrap().to_string(), "2017-03-18T03:54:24Z");
        assert_eq!(device.failed.unwrap().to_string(), "2017-03-18T04:07:44Z");
        assert_eq!((device.dialect, device.owner), (Dialect::Seed, None));
    }

    #[test]
    fn every_version_of_the_serializer_is_read() {
        assert_eq!(texts("return {};\n"), Some(Vec::new()));
        assert_eq!(texts("return { };"), Some(Vec::new()));
        assert_eq!(texts("return {a=\"b\"}"), one("a", "b"));
        assert_eq!(texts("return{[\"a\"]=\"b\",}"), one("a", "b"));
        assert_eq!(
            texts("return { [\"a\"] = \"\\195\\164\\10\\0z\\\"\\'\\\\\\t\\\n\"; };"),
            one("a", "ä\n\0z\"'\\\t\n")
        );
        assert_eq!(texts("return { [\"a\"] = \"ä\" }"), one("a", "ä"));
        let other = "return { 1; -2.5; 1e+30; [3] = \"x\"; true; nil; (1/0); { [\"a\"] = \"inner\"; { } }; a = false; \
                     [\"a\"] = \"b\" };";
        assert_eq!(texts(other), one("a", "b"));
    }

    #[test]
    fn nothing_is_executed() {
        for content in [
            "",
            "return",
            "return 1;",
            "return { [\"a\"] = os.execute(\"touch /tmp/executed\") };",
            "return { a = (function() return \"b\" end)() };",
            "return setmetatable({}, {});",
            "return {}; os.exit();",
            "os.exit(); return {};",
            "return {} return {}",
            "return { a = \"b\" .. \"c\" };",
            "return { a = b };",
            "return { a = \"b\" + 1 };",
            "return { a = [[b]] };",
            "return { a = 'b' };",
            "return { a = \"b };",
            "return { a = \"\\x41\" };",
            "return { a = \"\\256\" };",
            "return { a = \"\\255\" };",
            "return { a = \"\n\" };",
            "return { a == \"b\" };",
            "return { -- comment\n};",
            "return { a = truely };",
            "return { a = 1/0 };",
            "return { [\"a\"] \"b\" };",
            "return {",
            "returning {}",
        ] {
            assert!(texts(content).is_none(), "{content}");
        }
    }

    #[test]
    fn depth_and_size_have_a_bound() {
        assert!(texts(&format!("return {}{};", "{".repeat(16), "}".repeat(16))).is_some());
        for depth in [17, 100_000] {
            assert!(texts(&format!("return {}{};", "{".repeat(depth), "}".repeat(depth))).is_none());
        }
        let folder = TempDir::new();
        let file = folder.write("n.dat", format!("return {{ a = \"{}\" }};", "x".repeat(70_000)));
        assert!(matches!(read(&file), Err(ImportError::TooLarge)));
    }

    #[test]
    fn a_folder_of_prosody_is_searched() {
        let folder = TempDir::new();
        let store = folder.path().join("push%2eexample%2eorg/push_appserver");
        fs::create_dir_all(&store).unwrap();
        fs::create_dir_all(folder.path().join("example%2eorg/accounts")).unwrap();
        fs::write(
            folder.path().join("example%2eorg/accounts/push_appserver"),
            "a file",
        )
        .unwrap();
        let good = store.join("E0FF1D8C%2dEB96%2d4E10.dat");
        fs::write(&good, FILE).unwrap();
        let misnamed = store.join("other.dat");
        fs::write(&misnamed, FILE).unwrap();
        let rest = store.join("E0FF1D8C%2dEB96%2d4E10.dat~");
        fs::write(rest, FILE).unwrap();
        let host = folder.path().join("push%2eexample%2eorg");
        for start in [folder.path(), &host, &store] {
            assert_eq!(find(start).unwrap(), [good.clone(), misnamed.clone()]);
        }
        assert!(read(&good).is_ok());
        assert!(matches!(read(&misnamed), Err(ImportError::Name)));
        assert!(find(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn mistakes_are_named_without_values() {
        let with = |from: &str, to: &str| {
            let content = FILE.replace(from, to);
            device(content.as_bytes(), None, Time(0)).unwrap_err().to_string()
        };
        assert_eq!(with("[\"token\"]", "[\"tokn\"]"), "has no text for \"token\"");
        assert_eq!(with("\"384e51b4b2d5e475\"", "17"), "has no text for \"secret\"");
        assert_eq!(
            with("2017-03-18T02:54:51Z", "yesterday"),
            "\"renewed\" is not in the form 2017-03-18T04:07:44Z"
        );
        assert!(with("E0FF1D8C", "\\0").starts_with("has a field"));
        assert!(with("};", "").starts_with("is not a table as Prosody writes it, from byte "));
    }

    proptest! {
        #[test]
        fn no_file_breaks_the_parser(content: Vec<u8>, tail in "[{}\\[\\]=;,\"\\\\a-z0-9 .()/-]{0,60}") {
            drop(lua::parse(&content));
            drop(lua::parse(format!("return {{{tail}").as_bytes()));
        }

        #[test]
        fn names_are_unescaped(name in ".{0,40}") {
            prop_assert_eq!(unescape(&escape(&name)), Some(name));
        }

        #[test]
        fn a_file_gives_back_its_device(
            texts in proptest::array::uniform4("[^\\p{Cc}]{1,30}|[\"\\\\a]{1,9}"),
            registered in 0..4_000_000_000_i64,
            renewed in proptest::option::of(0..4_000_000_000_i64),
        ) {
            let [kind, node, secret, token] = texts;
            let before = Device {
                kind, node, secret, token,
                registered: Time(registered * 1_000),
                renewed: renewed.map(|renewed| Time(renewed * 1_000)),
                ..device(FILE.as_bytes(), None, Time(0)).unwrap()
            };
            if let Some((name, content)) = to_file(&before) {
                let name = unescape(name.strip_suffix(".dat").unwrap());
                prop_assert!(device(content.as_bytes(), name.as_deref(), Time(1)).unwrap() == before);
            } else {
                prop_assert!(before.node.len() > 80);
            }
        }
    }
}
