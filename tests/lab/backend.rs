//! The backend: this test binary again, run inside the lab as a service. It answers by the first
//! folder of the path, unless a file of that name in `/run/lab-backend` says what to answer.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, thread};

/// Its unit.
pub(super) const UNIT: &str = "[Service]
Type=notify
Environment=POSTGATE_LAB_BACKEND=127.0.0.1:8080
ExecStart=/usr/local/bin/lab-backend --exact lab::backend::serve --nocapture
";

#[test]
fn serve() {
    serve_inside();
}

/// Serves where the variable is set, inside the lab; anywhere else there is nothing to do.
pub(crate) fn serve_inside() {
    let Ok(address) = env::var("POSTGATE_LAB_BACKEND") else {
        return;
    };
    let listener = TcpListener::bind(address).expect("a free port");
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).expect("systemd");
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        // The client may go at any time.
        thread::spawn(|| converse(stream).ok());
    }
}

struct Request {
    method: String,
    folder: String,
    key: String,
    token: String,
    form: Vec<(String, String)>,
    body: String,
}

fn converse(stream: TcpStream) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let says = fs::read_to_string(format!("/run/lab-backend/{}", request.folder));
        let (head, body) = match says
            .as_deref()
            .map(|says| says.split_once('\n').unwrap_or((says, "")))
        {
            Ok(("hang", _)) => loop {
                thread::park();
            },
            // Late, and still in time.
            Ok(("slow", rest)) => {
                thread::sleep(Duration::from_millis(500));
                let (head, body) = rest.split_once('\n').unwrap_or((rest, ""));
                (head.to_owned(), body.to_owned())
            }
            Ok(("raw", bytes)) => return writer.write_all(bytes.as_bytes()),
            // Waits for a writer, as the folder of this name does.
            Ok(("wait", _)) => {
                fs::read("/tmp/go")?;
                answer(&request)
            }
            Ok((head, body)) => (head.to_owned(), body.to_owned()),
            Err(_) => answer(&request),
        };
        let (status, content_type) = head.split_once(' ').expect("STATUS CONTENT-TYPE");
        // In one piece: of several the kernel would hold back the second for 40 ms.
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status} x\r\n\
            Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        writer.write_all(reply.as_bytes())?;
    }
    Ok(())
}

/// Reads one request and notes it in the journal. None: the client has gone.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (mut id, mut token, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        let (name, value) = header.trim_end().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "x-auth-token" => token = value.to_owned(),
            "x-request-id" => id = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    println!("asked {id} {target}");

    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut path = path.trim_start_matches('/').splitn(2, '/');
    let folder = path.next().unwrap_or_default().to_owned();
    let in_path = path.next().map(plain);
    let in_query = || {
        pairs(query)
            .into_iter()
            .find(|(name, _)| name == "key")
            .map(|(_, key)| key)
    };
    Ok(Some(Request {
        folder,
        key: in_path.or_else(in_query).unwrap_or_default(),
        token,
        form: pairs(&String::from_utf8_lossy(&body)),
        body: String::from_utf8_lossy(&body).into_owned(),
        method,
    }))
}

fn pairs(form: &str) -> Vec<(String, String)> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

fn plain(escaped: &str) -> String {
    let blanks = escaped.replace('+', " ");
    percent_encoding::percent_decode_str(&blanks)
        .decode_utf8_lossy()
        .into_owned()
}

/// Says who has logged in, or why not.
fn login(body: &str) -> serde_json::Value {
    let login: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| login[name].as_str().unwrap_or_default().to_owned();
    let is_good = ["p w\u{20ac}", "plain password"].contains(&&*text("password"))
        || text("token") == "good.t-k";
    let why = match &*text("password") {
        "locked" => "account locked",
        _ => "no such password",
    };
    serde_json::json!({ "ok": is_good, "user": text("username"), "why": why })
}

fn answer(request: &Request) -> (String, String) {
    let json = |value: serde_json::Value| ("200 application/json".to_owned(), value.to_string());
    let text = |body: &str| ("200 text/plain".to_owned(), body.to_owned());
    let not_found = || ("404 application/json".to_owned(), "{}".to_owned());
    let key = &request.key;
    match request.folder.as_str() {
        "kv" => kept(request),
        "echo" if key.contains("missing") => not_found(),
        "echo" => json(key.as_str().into()),
        // Waits for a writer, which knows then that the request has come here.
        "wait" => {
            fs::read("/tmp/go").expect("the pipe");
            json(key.as_str().into())
        }
        "token" => json(request.token.as_str().into()),
        "domains" if key.ends_with("lab.test") => json("here".into()),
        "users" | "mailboxes" if key.starts_with("user") => json("1".into()),
        "aliases" if key.starts_with("both") => json(serde_json::json!([
            key.replace("both", "user1"),
            key.replace("both", "user2")
        ])),
        "access" if key.starts_with("closed") => json("REJECT mailbox closed".into()),
        "domains" | "users" | "mailboxes" | "aliases" | "access" | "transport" => not_found(),
        "senders" if key.ends_with("@lab.test") => json(key.as_str().into()),
        "senders" => not_found(),
        "login" => json(login(&request.body)),
        "policy" => {
            let sender = request.form.iter().find(|(name, _)| name == "sender");
            let sender = sender.map_or("", |(_, sender)| sender);
            match sender.split('@').next().unwrap_or_default() {
                "reject" => text("action=REJECT you are on the list"),
                "defer" => text("DEFER_IF_PERMIT come back later"),
                "code" => text("550 5.7.1 not from you"),
                "prepend" => text("PREPEND X-Judged: yes"),
                _ => text("DUNNO"),
            }
        }
        _ => ("400 text/plain".to_owned(), "no such folder".to_owned()),
    }
}

/// Keeps values under their paths. A path that ends with a slash is the list of what is below it.
fn kept(request: &Request) -> (String, String) {
    static KEPT: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut kept = KEPT.lock().expect("no panic");
    let (key, value) = (&request.key, &request.body);
    println!("kv {} {key} {}", request.method, value.escape_debug());
    let json = |value: serde_json::Value| ("200 application/json".to_owned(), value.to_string());
    let empty = |status: &str| (format!("{status} text/plain"), String::new());
    match request.method.as_str() {
        "GET" if key.ends_with('/') => {
            let below = kept.range(key.clone()..).map_while(|(path, value)| {
                let name = path.strip_prefix(key.as_str())?;
                Some((name.to_owned(), value.as_str().into()))
            });
            json(serde_json::Value::Object(below.collect()))
        }
        "GET" => kept
            .get(key)
            .map_or_else(|| empty("404"), |value| json(value.as_str().into())),
        "PUT" => {
            kept.insert(key.clone(), value.clone());
            empty("200")
        }
        "DELETE" => empty(if kept.remove(key).is_some() {
            "200"
        } else {
            "404"
        }),
        "PATCH" => match kept.get_mut(key) {
            None => empty("404"),
            Some(number) => {
                let [old, by] = [number.as_str(), value].map(|text| text.parse().unwrap_or(0_i64));
                *number = (old + by).to_string();
                empty("200")
            }
        },
        // A whole transaction, which is noted only.
        "POST" => empty("200"),
        _ => empty("405"),
    }
}
