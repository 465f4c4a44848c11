//! nginx before the proxy, as platforms have a balancer or a gateway there: it ends TLS.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Names the program.
const VARIABLE: &str = "CLOISTER_NGINX";
/// Where Debian puts it.
const DEFAULT: &str = "/usr/sbin/nginx";

/// A running nginx. It is killed when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// `https://localhost:PORT/cloister`: what lies under it is handed on.
    pub url: String,
    /// The authority that its certificate is of: what `SSL_CERT_FILE` has to name.
    pub authority: PathBuf,
    _folder: TempDir,
}

impl Nginx {
    /// The program, or none, which is told. Where the variable asks for one, that it cannot be used is an error.
    pub fn find() -> anyhow::Result<Option<PathBuf>> {
        use std::io::Write;
        let asked = env::var_os(VARIABLE).map(PathBuf::from);
        let program = asked.clone().unwrap_or_else(|| DEFAULT.into());
        match (Command::new(&program).arg("-v").output(), asked) {
            (Ok(output), _) if output.status.success() => Ok(Some(program)),
            (_, Some(_)) => bail!("{VARIABLE}: {} does not run", program.display()),
            (_, None) => {
                // Past the test harness, which captures what passes.
                let skipped = format!(
                    "SKIPPED: there is no nginx at {DEFAULT} (Debian's nginx-light); {VARIABLE} names another\n"
                );
                std::io::stderr().write_all(skipped.as_bytes())?;
                Ok(None)
            }
        }
    }

    /// Starts it before `upstream`, `HOST:PORT` in plain HTTP.
    pub fn start(program: &Path, upstream: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        certify(&at("authority.pem"), &at("certificate.pem"), &at("key.pem"))?;
        // Somebody else may take it in between; then nginx says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let place = folder.path().display();
        let configuration = format!(
            "daemon off; pid {place}/pid; error_log stderr error; worker_processes 1;
             events {{ worker_connections 64; }}
             http {{
               access_log off; client_max_body_size 8m; proxy_buffering off;
               client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f;
               uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
               upstream parent {{ server {upstream}; keepalive 4; }}
               server {{
                 listen 127.0.0.1:{port} ssl;
                 ssl_certificate {place}/certificate.pem; ssl_certificate_key {place}/key.pem;
                 location /cloister/ {{
                   proxy_pass http://parent/; proxy_http_version 1.1; proxy_set_header Connection \"\";
                 }}
               }}
             }}"
        );
        fs::write(at("nginx.conf"), configuration)?;
        let mut child = Command::new(program)
            .arg("-c")
            .arg(at("nginx.conf"))
            .arg("-p")
            .arg(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                let url = format!("https://localhost:{port}/cloister");
                return Ok(Self { child, url, authority: at("authority.pem"), _folder: folder });
            }
            if let Some(status) = child.try_wait()? {
                bail!("nginx ended: {status}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        bail!("nginx does not listen")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn certify(authority: &Path, certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let issuer_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(authority, params.self_signed(&issuer_key)?.pem())?;
    let issuer = Issuer::new(params, issuer_key);
    let own_key = KeyPair::generate()?;
    let own = CertificateParams::new(["localhost".to_owned()])?.signed_by(&own_key, &issuer)?;
    fs::write(certificate, own.pem())?;
    fs::write(key, own_key.serialize_pem())?;
    Ok(())
}
