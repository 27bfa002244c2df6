//! `--format`: what the stock client printed for the same answers of an engine, and what it said of templates that fail.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use sbx_cli::{
    Command, Surroundings, parse_in,
    rows::{
        CONTAINERS, CONTAINERS_WITH_SIZE, ContainerRow, HISTORY, HISTORY_WITH_TIMES, HistoryRow, IMAGES,
        IMAGES_WITH_DIGEST, ImageRow, PortRow, VOLUMES, VolumeRow,
    },
    table::{Style, inspect, render},
    template::TemplateError,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    now: i64,
    cases: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    args: Vec<String>,
    stdout: String,
    stderr: String,
}

#[derive(Deserialize)]
struct Cases {
    answers: BTreeMap<String, Value>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn containers(answer: &Value, no_trunc: bool) -> Vec<ContainerRow> {
    let row = |one: &Value| ContainerRow {
        id: text(&one["Id"]),
        // Names with a second slash are links, which only the long form shows.
        names: strings(&one["Names"])
            .iter()
            .map(|name| name.trim_start_matches('/').to_owned())
            .filter(|name| no_trunc || !name.contains('/'))
            .collect(),
        image: text(&one["Image"]),
        image_id: text(&one["ImageID"]),
        command: text(&one["Command"]),
        created: one["Created"].as_i64().unwrap(),
        ports: one["Ports"].as_array().unwrap().iter().map(port).collect(),
        state: text(&one["State"]),
        status: text(&one["Status"]),
        size: one["SizeRw"].as_u64().unwrap_or(0),
        virtual_size: one["SizeRootFs"].as_u64().unwrap_or(0),
        labels: labels(&one["Labels"]),
        mounts: one["Mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| text(if mount["Name"].is_string() { &mount["Name"] } else { &mount["Source"] }))
            .collect(),
        local_volumes: one["Mounts"].as_array().unwrap().iter().filter(|mount| mount["Driver"] == "local").count(),
        networks: one["NetworkSettings"]["Networks"].as_object().unwrap().keys().cloned().collect(),
        platform: String::new(),
    };
    answer.as_array().unwrap().iter().map(row).collect()
}

fn port(value: &Value) -> PortRow {
    let number = |value: &Value| u16::try_from(value.as_u64().unwrap_or(0)).unwrap();
    PortRow {
        address: value["IP"].as_str().map(str::to_owned),
        private: number(&value["PrivatePort"]),
        public: number(&value["PublicPort"]),
        protocol: text(&value["Type"]),
    }
}

fn images(answer: &Value) -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for one in answer.as_array().unwrap() {
        let digest = strings(&one["RepoDigests"]).into_iter().next().unwrap_or_default();
        let (repository, digest) = digest.split_once('@').unwrap_or_default();
        let row = ImageRow {
            repository: repository.to_owned(),
            tag: String::new(),
            digest: digest.to_owned(),
            id: text(&one["Id"]),
            created: one["Created"].as_i64(),
            size: one["Size"].as_u64().unwrap(),
            containers: None,
        };
        let tags = strings(&one["RepoTags"]);
        rows.extend(tags.iter().map(|name| {
            let (repository, tag) = name.rsplit_once(':').unwrap();
            ImageRow { repository: repository.to_owned(), tag: tag.to_owned(), ..row.clone() }
        }));
        if tags.is_empty() {
            rows.push(row);
        }
    }
    rows
}

fn volumes(answer: &Value) -> Vec<VolumeRow> {
    let row = |one: &Value| VolumeRow {
        name: text(&one["Name"]),
        driver: text(&one["Driver"]),
        mountpoint: text(&one["Mountpoint"]),
        scope: text(&one["Scope"]),
        labels: labels(&one["Labels"]),
    };
    let mut rows: Vec<VolumeRow> = answer["Volumes"].as_array().unwrap().iter().map(row).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn history(answer: &Value) -> Vec<HistoryRow> {
    let row = |one: &Value| HistoryRow {
        id: text(&one["Id"]),
        created: one["Created"].as_i64().unwrap(),
        created_by: text(&one["CreatedBy"]),
        size: one["Size"].as_u64().unwrap(),
        comment: text(&one["Comment"]),
    };
    answer.as_array().unwrap().iter().map(row).collect()
}

/// Runs a line as the executor will: `-q` has a form of its own, a usual table may have one more column.
fn run(command: Command, answers: &BTreeMap<String, Value>, now: i64) -> Result<String, TemplateError> {
    let style = |no_trunc: bool, human: bool| Style { truncate: !no_trunc, human, now };
    let usual = |format: &Option<String>| format.is_none() || format.as_deref() == Some("table");
    match command {
        Command::List(list) => {
            let mut format = list.format.clone();
            if list.size && usual(&format) {
                format = Some(CONTAINERS_WITH_SIZE.to_owned());
            }
            if list.quiet {
                format = Some("{{.ID}}".to_owned());
            }
            let mut rows = containers(&answers["/containers/json"], list.no_trunc);
            if !list.size && !sbx_cli::table::shows(format.as_deref(), "Size") {
                rows.iter_mut().for_each(|row| row.virtual_size = 0);
            }
            render(&CONTAINERS, &rows, format.as_deref(), style(list.no_trunc, true))
        }
        Command::Images(list) => {
            let mut format = list.format.clone();
            if list.digests && usual(&format) {
                format = Some(IMAGES_WITH_DIGEST.to_owned());
            }
            if list.quiet {
                format = Some("{{.ID}}".to_owned());
            }
            render(&IMAGES, &images(&answers["/images/json"]), format.as_deref(), style(list.no_trunc, true))
        }
        Command::History(list) => {
            let mut format = list.format.clone();
            if !list.human && usual(&format) {
                format = Some(HISTORY_WITH_TIMES.to_owned());
            }
            if list.quiet {
                format = Some("{{.ID}}".to_owned());
            }
            let rows = history(&answers["/images/alpine/history"]);
            render(&HISTORY, &rows, format.as_deref(), style(list.no_trunc, list.human))
        }
        Command::Volumes(list) => {
            let format = if list.quiet { Some("{{.Name}}".to_owned()) } else { list.format };
            render(&VOLUMES, &volumes(&answers["/volumes"]), format.as_deref(), style(false, true))
        }
        Command::Inspect(list) => {
            let path = if list.names == ["data"] { "/volumes/data" } else { "/containers/web/json" };
            inspect(&[answers[path].clone()], list.format.as_deref())
        }
        other => panic!("{other:?} is not recorded"),
    }
}

/// Formats that print something else here, and why.
const OWN: &[(&str, &str)] = &[
    ("{{.XExtra.Zero", "a number that is zero is false; Docker keeps numbers it does not know as text"),
    ("if .XExtra.Zero", "the same"),
    ("{{eq .XExtra.Zero 0}}", "the same"),
    ("{{eq .XExtra.Float 1.5}}", "the same"),
    ("{{printf \"%.2f %t\" .XExtra.Float", "the same"),
    ("{{if eq . 3}}", "the same"),
    ("{{len .State.Pid}}", "a number has no length"),
    ("{{index .Config.Labels \"nope\"}}|", "both print nothing, Docker for a map of its own"),
    ("{{call .Name}}", "there are no functions as values"),
    ("{{.Platform}}", "the platform is known"),
    ("{{.}}", "Docker prints the addresses of its own structures"),
    ("{{.Digest}}|", "Docker forgets the digest of an image without a tag"),
    ("{{.Digest}}\t{{.Tag}}", "the same"),
    ("table {{.Foo}}", "the place is counted without the word `table`"),
    ("table {{slice .ID 0 3}}", "Docker has titles of one letter in its first reading"),
    ("raw", "an old form without a template"),
    ("{{.Labels}}", "Docker prints labels in any order"),
];

#[test]
fn formats_print_what_the_stock_client_prints() {
    let golden: Golden = serde_json::from_str(include_str!("format_golden.json")).unwrap();
    let cases: Cases = serde_json::from_str(include_str!("format_cases.json")).unwrap();
    let around = Surroundings::new(PathBuf::from("/"), |_| None);
    let (mut compared, mut wrong) = (0, Vec::new());
    for recording in &golden.cases {
        let line = recording.args.join(" ");
        if OWN.iter().any(|(part, _)| line.contains(part)) {
            continue;
        }
        compared += 1;
        let command = parse_in(recording.args.iter().map(OsString::from), &around).unwrap().command;
        let fault = match run(command, &cases.answers, golden.now) {
            Ok(text) if same_text(&text, &recording.stdout, &line) => None,
            Ok(text) => Some(format!("expected {:?}{:?}\n     found {text:?}", recording.stdout, recording.stderr)),
            Err(error) => {
                // `ps` reads its template twice and says so with other words.
                let expected = recording
                    .stderr
                    .trim_end()
                    .trim_start_matches("failed to execute template: ")
                    .trim_start_matches("failed to parse template: ")
                    .trim_start_matches("template parsing error: ");
                let expected = expected.replace("type volume.Volume", "type volume").to_owned();
                (!same_fault(&expected, &error.to_string()))
                    .then(|| format!("expected {expected:?}\n     found {:?}", error.to_string()))
            }
        };
        wrong.extend(fault.map(|fault| format!("{line}\n  {fault}")));
    }
    assert!(compared > 220, "only {compared} recordings");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Lines of JSON are compared by what they say.
fn same_text(found: &str, expected: &str, line: &str) -> bool {
    if found == expected {
        return true;
    }
    let read = |text: &str| -> Option<Vec<Value>> {
        let whole = serde_json::from_str(text).map(|value| vec![value]).ok();
        whole.or_else(|| text.lines().map(|line| serde_json::from_str(line).ok()).collect())
    };
    let Some((mut found, mut expected)) = read(found).zip(read(expected)) else {
        return false;
    };
    for value in found.iter_mut().chain(&mut expected) {
        if let Some(members) = value.as_object_mut() {
            // See the platform above; a digest is shown although no column asks for it.
            members.remove("Platform");
            if line.starts_with("images") {
                members.remove("Digest");
            }
        }
    }
    found == expected
}

/// `volume inspect` names the type, where we have a map.
fn same_fault(expected: &str, found: &str) -> bool {
    expected == found || (expected.contains("in type volume") && found.contains("map has no entry for key"))
}

/// Every template without its end, and without each of its letters: whatever comes of it, nothing panics.
#[test]
fn broken_templates_are_faults() {
    use sbx_cli::template::{Root, Template};
    let golden: Golden = serde_json::from_str(include_str!("format_golden.json")).unwrap();
    let cases: Cases = serde_json::from_str(include_str!("format_cases.json")).unwrap();
    let data = &cases.answers["/containers/web/json"];
    let (mut read, mut faults) = (0, 0);
    for recording in golden.cases.iter().filter(|recording| recording.args[0] == "inspect" && recording.args.len() > 2)
    {
        let template = &recording.args[2];
        for (at, letter) in template.char_indices() {
            let after = &template[at + letter.len_utf8()..];
            for broken in [template[..at].to_owned(), format!("{}{after}", &template[..at]), format!("{{{{{after}")] {
                match Template::parse(&broken).and_then(|template| template.execute(Root::of_map(data))) {
                    Ok(_) => read += 1,
                    Err(error) => {
                        assert!(error.to_string().starts_with("template: :"), "{broken}: {error}");
                        faults += 1;
                    }
                }
            }
        }
    }
    assert!(read > 1000 && faults > 1000, "{read} {faults}");
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(Template::parse(&deep).is_err());
    assert!(Template::parse(&"{{if 1}}".repeat(5000)).is_err());
}
